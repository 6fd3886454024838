package access

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Catalog knows resources by the names people call them. The order of its
// resources decides where a name means several.
type Catalog struct {
	resources []resource
	// served says that an API server was asked.
	served bool
}

type resource struct {
	group, name   string
	aliases       []string // singular and short names
	clusterScoped bool
	subresources  []string
	// unserved marks one that is only known, not served.
	unserved bool
}

// NewCatalog makes a catalog of what an API server says it serves and, after
// that, of what Builtin knows besides.
func NewCatalog(lists []*metav1.APIResourceList) *Catalog {
	c := &Catalog{served: true}
	subresources := map[schema.GroupResource][]string{}
	seen := map[schema.GroupResource]bool{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for i := range list.APIResources {
			r := &list.APIResources[i]
			name, sub, isSub := strings.Cut(r.Name, "/")
			key := schema.GroupResource{Group: gv.Group, Resource: name}
			if isSub {
				subresources[key] = append(subresources[key], sub)
				continue
			}
			if seen[key] {
				continue // in another version
			}
			seen[key] = true
			c.resources = append(c.resources, resource{
				group: gv.Group, name: name, clusterScoped: !r.Namespaced,
				aliases: append([]string{r.SingularName, strings.ToLower(r.Kind)}, r.ShortNames...),
			})
		}
	}
	for i := range c.resources {
		r := &c.resources[i]
		r.subresources = append([]string{}, subresources[schema.GroupResource{Group: r.group, Resource: r.name}]...)
	}
	for _, r := range Builtin().resources {
		if !seen[schema.GroupResource{Group: r.group, Resource: r.name}] {
			r.unserved = true
			c.resources = append(c.resources, r)
		}
	}
	return c
}

// Spec is a resource as written, RESOURCE[/SUBRESOURCE] or RESOURCE[/NAME], and
// where it is meant.
type Spec struct {
	Verb string
	Text string
	// Subresource, if not nil, is given by itself: then what follows the slash
	// is a name.
	Subresource *string
	// Namespace is empty for all.
	Namespace string
}

// Resolve reads a spec. The notes say how, where that is not plain.
func (c *Catalog) Resolve(s Spec) (t Target, notes []string, err error) {
	if strings.HasPrefix(s.Text, "/") {
		return Target{Path: s.Text}, nil, nil
	}
	parts := strings.Split(s.Text, "/")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return t, nil, fmt.Errorf("resource %q: write RESOURCE, RESOURCE/NAME, RESOURCE/SUBRESOURCE, RESOURCE/NAME/SUBRESOURCE or a path that starts with a slash", s.Text)
	}
	found := c.find(parts[0], &t)
	if c.served && t.Resource != "*" && (found == nil || found.unserved) {
		notes = append(notes, fmt.Sprintf("the API server does not serve %s", parts[0]))
	}
	if err := t.place(parts[1:], s.Subresource, found); err != nil {
		return t, nil, fmt.Errorf("resource %q: %w", s.Text, err)
	}
	t.Namespace = s.Namespace
	switch {
	case t.Resource == "namespaces" && t.APIGroup == "" && t.Name != "":
		// An API server takes a namespace to be in itself, so that roles there count.
		t.ClusterScoped, t.Namespace = false, t.Name
	case t.ClusterScoped:
		t.Namespace = ""
	}
	if t.Name != "" && t.Subresource == "" && (s.Verb == "create" || s.Verb == "deletecollection") {
		notes = append(notes, fmt.Sprintf("a request to %s names no object, so %s is left out", s.Verb, t.Name))
		t.Name = ""
	}
	return t, notes, nil
}

var versionPattern = regexp.MustCompile(`^v[0-9]+((alpha|beta)[0-9]+)?$`)

// find fills in resource and group from text such as "deploy",
// "deployments.apps" or "deployments.v1.apps", and returns what the catalog
// knows of it, or nil.
func (c *Catalog) find(text string, t *Target) *resource {
	name, group, grouped := strings.Cut(text, ".")
	if version, rest, _ := strings.Cut(group, "."); versionPattern.MatchString(version) {
		group = rest
	}
	t.Resource, t.APIGroup, t.AnyGroup = strings.ToLower(name), group, !grouped
	if name == "*" {
		if t.AnyGroup {
			t.APIGroup, t.AnyGroup = "*", false
		}
		return nil
	}
	for i := range c.resources {
		r := &c.resources[i]
		if grouped && r.group != group || r.name != t.Resource && !slices.Contains(r.aliases, t.Resource) {
			continue
		}
		t.Resource, t.APIGroup, t.AnyGroup, t.ClusterScoped = r.name, r.group, false, r.clusterScoped
		return r
	}
	return nil
}

// usualSubresources are taken for such where the resource is not known.
var usualSubresources = []string{
	"approval", "attach", "binding", "ephemeralcontainers", "eviction", "exec", "finalize", "log", "portforward", "proxy",
	"resize", "scale", "status", "token",
}

// place tells names from subresources.
func (t *Target) place(rest []string, given *string, known *resource) error {
	isSub := func(s string) bool { return slices.Contains(usualSubresources, s) }
	if known != nil {
		isSub = func(s string) bool { return slices.Contains(known.subresources, s) }
	}
	switch {
	case given != nil && len(rest) > 1:
		return fmt.Errorf("it has a subresource already, so --subresource says nothing")
	case given != nil:
		t.Subresource = *given
		t.Name = strings.Join(rest, "")
	case len(rest) == 1 && isSub(rest[0]):
		t.Subresource = rest[0]
	case len(rest) == 1:
		t.Name = rest[0]
	case len(rest) == 2 && isSub(rest[0]) && !isSub(rest[1]):
		t.Subresource, t.Name = rest[0], rest[1]
	case len(rest) == 2:
		t.Name, t.Subresource = rest[0], rest[1]
	}
	return nil
}
