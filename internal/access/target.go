package access

import (
	"fmt"
	"strings"
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
