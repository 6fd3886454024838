package access

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/hint"
)

// Target is what something is to be done with: objects of a resource, or a
// path of the API server.
type Target struct {
	APIGroup    string `json:"apiGroup"`
	Resource    string `json:"resource,omitempty"`
	Subresource string `json:"subresource,omitempty"`
	Name        string `json:"name,omitempty"`
	// Namespace is empty for all namespaces, and for what is in none.
	Namespace string `json:"namespace,omitempty"`
	// ClusterScoped is set for a resource known to be in no namespace.
	ClusterScoped bool `json:"clusterScoped,omitempty"`
	// Path is set instead of all of the above.
	Path string `json:"path,omitempty"`

	// version is that in which an API server serves the resource; empty for none.
	version string
}

// Version is the API version in which an API server serves the resource; empty if none does.
func (t *Target) Version() string { return t.version }

// joined is the resource as rules write it.
func (t *Target) joined() string {
	if t.Subresource == "" {
		return t.Resource
	}
	return t.Resource + "/" + t.Subresource
}

// String says what the target is: "pods/log web of apps in namespace shop".
func (t *Target) String() string {
	if t.Path != "" {
		return t.Path
	}
	text := t.joined()
	if t.APIGroup != "" {
		resource, sub, _ := strings.Cut(text, "/")
		text = resource + "." + t.APIGroup
		if sub != "" {
			text += "/" + sub
		}
	}
	if t.Name != "" {
		text += " " + fmt.Sprintf("%q", t.Name)
	}
	switch {
	case t.Namespace != "":
		return text + " in namespace " + t.Namespace
	case t.ClusterScoped:
		return text
	}
	return text + " in all namespaces"
}

// Attributes are what an API server is asked when someone does verb with the target, each by its name in a
// SubjectAccessReview.
func (t *Target) Attributes(verb string) string {
	if t.Path != "" {
		return fmt.Sprintf("verb=%q path=%q", verb, t.Path)
	}
	return fmt.Sprintf("verb=%q group=%q resource=%q subresource=%q name=%q namespace=%q",
		verb, t.APIGroup, t.Resource, t.Subresource, t.Name, t.Namespace)
}

func groupName(group string) string {
	if group == "" {
		return "core"
	}
	return group
}

// Spec is a resource as written and where it is meant: RESOURCE, followed by a name, a subresource, or both, each after a
// slash. RESOURCE is RESOURCE.GROUP or RESOURCE.VERSION.GROUP where the group matters.
type Spec struct {
	Verb string
	Text string
	// Subresource, if not nil, is given by itself: then what follows the slash is a name, as kubectl reads it.
	Subresource *string
	// Name, if not empty, is given by itself: then what follows the slash is a subresource.
	Name string
	// Namespace is empty for all.
	Namespace string
}

// Resolve reads a spec. TYPE/X means the subresource X of TYPE if TYPE is known to have one or a rule names it, and
// otherwise the object X. The notes say what was decided where that is not plain. An error that tells of a
// resource that is not known has a hint.
func (c *Catalog) Resolve(s Spec) (t Target, notes []string, err error) {
	notes = c.verbNotes(s.Verb, strings.HasPrefix(s.Text, "/"))
	if strings.HasPrefix(s.Text, "/") {
		if s.Subresource != nil || s.Name != "" {
			return t, nil, fmt.Errorf("path %q has neither a subresource nor a name", s.Text)
		}
		return Target{Path: s.Text}, notes, nil
	}
	parts := strings.Split(s.Text, "/")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return t, nil, fmt.Errorf("resource %q: write RESOURCE, RESOURCE/NAME, RESOURCE/SUBRESOURCE, RESOURCE/NAME/SUBRESOURCE or a path that starts with a slash", s.Text)
	}
	r, found, err := c.find(s.Verb, parts[0])
	if err != nil {
		return t, nil, err
	}
	notes = append(notes, found...)
	t.Resource, t.APIGroup, t.ClusterScoped, t.version = r.name, r.group, r.clusterScoped, r.version
	read, err := c.place(&t, parts[1:], s, &r)
	if err != nil {
		return t, nil, fmt.Errorf("resource %q: %w", s.Text, err)
	}
	t.settle(s.Namespace)
	return t, append(notes, read...), nil
}

// settle says in which namespace the target is.
func (t *Target) settle(namespace string) {
	t.Namespace = namespace
	switch {
	case t.Resource == "namespaces" && t.APIGroup == "" && t.Name != "":
		// An API server takes a namespace to be in itself, so that roles there count.
		t.ClusterScoped, t.Namespace = false, t.Name
	case t.ClusterScoped:
		t.Namespace = ""
	}
}

var versionPattern = regexp.MustCompile(`^v[0-9]+((alpha|beta)[0-9]+)?$`)

// find reads text such as "deploy", "deployments.apps" or "deployments.v1.apps". A resource that is not known is an error
// unless its group is given.
func (c *Catalog) find(verb, text string) (r resource, notes []string, err error) {
	name, group, grouped := strings.Cut(text, ".")
	if version, rest, _ := strings.Cut(group, "."); versionPattern.MatchString(version) {
		group = rest
	}
	if name == rbacv1.ResourceAll {
		if !grouped {
			group = rbacv1.APIGroupAll
		}
		return resource{group: group, name: name, subresources: []string{"*"}}, nil, nil
	}
	name = strings.ToLower(name)
	all := c.called(name, group, grouped)
	if strings.HasPrefix(verb, "impersonate:") {
		virtual := &Catalog{resources: parseResources(impersonated, known)}
		all = append(virtual.called(name, group, grouped), all...)
	}
	switch {
	case len(all) > 0:
		return all[0], c.foundNotes(all), nil
	case !grouped:
		return r, nil, c.unknownResource(text)
	}
	note := fmt.Sprintf("%s is not known to exist in API group %s; it is taken to be in namespaces", name, groupName(group))
	if near := Nearest(name, c.names(&group)); near != "" {
		note += fmt.Sprintf("; did you mean %s.%s?", near, group)
	}
	return resource{group: group, name: name, from: ruled}, []string{note}, nil
}

// foundNotes says what else the name of all could mean, and what is not known of the first.
func (c *Catalog) foundNotes(all []resource) (notes []string) {
	r := all[0]
	var others []string
	for _, o := range all[1:] {
		if o.group != r.group || o.name != r.name {
			others = append(others, o.name+"."+o.group)
		}
	}
	if len(others) > 0 {
		notes = append(notes, fmt.Sprintf("the name is taken for %s in API group %s; there are also %s", r.name, groupName(r.group), strings.Join(others, ", ")))
	}
	switch {
	case r.from == ruled:
		notes = append(notes, fmt.Sprintf("only rules name %s in API group %s; it is taken to be in namespaces", r.name, groupName(r.group)))
	case r.from == known && c.served:
		notes = append(notes, fmt.Sprintf("the API server does not serve %s in API group %s", r.name, groupName(r.group)))
	}
	return notes
}

func (c *Catalog) unknownResource(text string) error {
	where := "neither Kubernetes has it nor does a rule name it"
	if c.served {
		where = "the API server does not serve it, and no rule names it"
	}
	next := fmt.Sprintf("write %s.GROUP, or %s. for the core group, if it exists", text, text)
	if near := Nearest(text, c.names(nil)); near != "" {
		next = fmt.Sprintf("did you mean %s?", near)
	}
	return hint.New(fmt.Errorf("resource %q is not known: %s", text, where), next)
}

// place tells names from subresources. The notes say which it was where kubectl reads the text in another way, or where
// the other reading is likely too.
func (c *Catalog) place(t *Target, rest []string, s Spec, r *resource) (notes []string, err error) {
	isSub := func(text string) bool { return c.hasSubresource(r, text) }
	switch {
	case s.Subresource != nil && len(rest) > 1:
		return nil, fmt.Errorf("it has a subresource already, so --subresource says nothing")
	case s.Name != "" && (len(rest) > 1 || s.Subresource != nil && len(rest) > 0):
		return nil, fmt.Errorf("it has a name already, so --name says nothing")
	case s.Subresource != nil:
		t.Subresource, t.Name = *s.Subresource, strings.Join(rest, "")+s.Name
	case s.Name != "":
		t.Subresource, t.Name = strings.Join(rest, ""), s.Name
	case len(rest) == 1 && isSub(rest[0]):
		t.Subresource = rest[0]
		notes = append(notes, fmt.Sprintf("%s is read as a subresource of %s; for an object of that name write --name %s", rest[0], t.Resource, rest[0]))
	case len(rest) == 1:
		t.Name = rest[0]
		if near := Nearest(rest[0], r.subresources); near != "" {
			notes = append(notes, fmt.Sprintf("%s is read as the name of an object, as %s has no such subresource; did you mean %s/%s?", rest[0], t.Resource, t.Resource, near))
		}
	case len(rest) == 2 && isSub(rest[0]) && (!isSub(rest[1]) || r.anySubresource()):
		t.Subresource, t.Name = rest[0], rest[1]
	case len(rest) == 2:
		t.Name, t.Subresource = rest[0], rest[1]
	}
	if t.Subresource != "" && !isSub(t.Subresource) {
		note := fmt.Sprintf("%s is not known to have a subresource %s", t.Resource, t.Subresource)
		if near := Nearest(t.Subresource, r.subresources); near != "" {
			note += ": did you mean " + near + "?"
		}
		notes = append(notes, note)
	}
	return notes, nil
}
