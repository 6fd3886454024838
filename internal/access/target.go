package access

import (
	"fmt"
	"strings"

	"lanyard.dev/internal/rbac"
)

// Target is what something is to be done with: objects of a resource, or a
// path of the API server.
type Target struct {
	APIGroup string `json:"apiGroup"`
	// AnyGroup says that the API group is not known. Then a rule counts
	// whatever its groups are, if it names the resource.
	AnyGroup    bool   `json:"anyAPIGroup,omitempty"`
	Resource    string `json:"resource,omitempty"`
	Subresource string `json:"subresource,omitempty"`
	Name        string `json:"name,omitempty"`
	// Namespace is empty for all namespaces, and for what is in none.
	Namespace string `json:"namespace,omitempty"`
	// ClusterScoped is set for a resource known to be in no namespace.
	ClusterScoped bool `json:"clusterScoped,omitempty"`
	// Path is set instead of all of the above.
	Path string `json:"path,omitempty"`
}

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

// groupNotes says which API groups were meant, where the target does not.
func (t *Target) groupNotes(requests []rbac.Request) []string {
	if !t.AnyGroup {
		return nil
	}
	if requests[0].APIGroup == noGroup {
		return []string{fmt.Sprintf("the API group of %s is not known, and no rule names it", t.Resource)}
	}
	var names []string
	for _, r := range requests {
		names = append(names, groupName(r.APIGroup))
	}
	return []string{fmt.Sprintf("the API group of %s is not known: any rule that names it counts, here for %s", t.Resource, strings.Join(names, ", "))}
}

func groupName(group string) string {
	if group == "" {
		return "core"
	}
	return group
}
