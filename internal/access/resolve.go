package access

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/hint"
)

// Target is the object of a request: objects of a resource, or a path of the API server.
type Target struct {
	APIGroup    string `json:"apiGroup"`
	Resource    string `json:"resource,omitempty"`
	Subresource string `json:"subresource,omitempty"`
	Name        string `json:"name,omitempty"`
	// Namespace is empty for all namespaces, and for targets that are in none.
	Namespace string `json:"namespace,omitempty"`
	// ClusterScoped is set if the resource is known to be cluster-scoped.
	ClusterScoped bool `json:"clusterScoped,omitempty"`
	// Path is set instead of all of the above.
	Path string `json:"path,omitempty"`

	// version is the API version in which an API server serves the resource; empty if none does.
	version string
}

// Version returns the API version in which an API server serves the resource; empty if none does.
func (t *Target) Version() string { return t.version }

// joined returns the resource as rules write it.
func (t *Target) joined() string {
	if t.Subresource == "" {
		return t.Resource
	}
	return t.Resource + "/" + t.Subresource
}

// String describes the target, for example: pods/log "web" in namespace shop.
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

// Attributes returns the attributes of a request with verb, each with its name in a SubjectAccessReview.
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

// Spec is a target as a user writes it. Text is RESOURCE, followed by a name, a subresource or both, each after a slash.
// RESOURCE may also be RESOURCE.GROUP or RESOURCE.VERSION.GROUP.
type Spec struct {
	Verb string
	Text string
	// Subresource, if not nil, is the subresource; then the part of Text after the slash is a name, as in kubectl.
	Subresource *string
	// Name, if not empty, is the name; then the part of Text after the slash is a subresource.
	Name string
	// Namespace is empty for all.
	Namespace string
}

// Resolve returns the target of a spec. TYPE/X means the subresource X of TYPE if TYPE is known to have one or a rule names
// it, else the object X. The notes explain the choice if there was one. The error about an unknown resource has a hint.
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
	read, err := c.splitNames(&t, parts[1:], s, &r)
	if err != nil {
		return t, nil, fmt.Errorf("resource %q: %w", s.Text, err)
	}
	t.setNamespace(s.Namespace)
	return t, append(notes, read...), nil
}

// setNamespace sets the namespace of the target.
func (t *Target) setNamespace(namespace string) {
	t.Namespace = namespace
	switch {
	case t.Resource == "namespaces" && t.APIGroup == "" && t.Name != "":
		// For an API server a namespace is in itself, so roles in the namespace apply to it.
		t.ClusterScoped, t.Namespace = false, t.Name
	case t.ClusterScoped:
		t.Namespace = ""
	}
}

var versionPattern = regexp.MustCompile(`^v[0-9]+((alpha|beta)[0-9]+)?$`)

// find returns the resource for text such as "deploy", "deployments.apps" or "deployments.v1.apps". An unknown resource is an
// error unless text has a group.
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
	all := c.named(name, group, grouped)
	if strings.HasPrefix(verb, "impersonate:") {
		virtual := &Catalog{resources: parseResources(impersonated, builtIn)}
		all = append(virtual.named(name, group, grouped), all...)
	}
	switch {
	case len(all) > 0:
		return all[0], c.foundNotes(all), nil
	case !grouped:
		return r, nil, c.unknownResource(text)
	}
	note := fmt.Sprintf("%s is not known to exist in API group %s; it is assumed to be namespaced", name, groupName(group))
	if near := Nearest(name, c.names(&group)); near != "" {
		note += fmt.Sprintf("; did you mean %s.%s?", near, group)
	}
	return resource{group: group, name: name, from: byRule}, []string{note}, nil
}

// foundNotes returns notes about the other resources of that name, and about what is unknown of the first.
func (c *Catalog) foundNotes(all []resource) (notes []string) {
	r := all[0]
	var others []string
	for _, o := range all[1:] {
		if o.group != r.group || o.name != r.name {
			others = append(others, o.name+"."+o.group)
		}
	}
	if len(others) > 0 {
		notes = append(notes, fmt.Sprintf("the name is read as %s in API group %s; there are also %s", r.name, groupName(r.group), strings.Join(others, ", ")))
	}
	switch {
	case r.from == byRule:
		notes = append(notes, fmt.Sprintf("only rules name %s in API group %s; it is assumed to be namespaced", r.name, groupName(r.group)))
	case r.from == builtIn && c.served:
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

// splitNames decides which parts of a spec are the name and the subresource. It returns notes if kubectl reads the text in
// another way, or if the other reading is likely too.
func (c *Catalog) splitNames(t *Target, rest []string, s Spec, r *resource) (notes []string, err error) {
	isSub := func(text string) bool { return c.hasSubresource(r, text) }
	switch {
	case s.Subresource != nil && len(rest) > 1:
		return nil, fmt.Errorf("it names a subresource already: remove --subresource")
	case s.Name != "" && (len(rest) > 1 || s.Subresource != nil && len(rest) > 0):
		return nil, fmt.Errorf("it contains a name already: remove --name")
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
