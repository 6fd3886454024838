package access

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/hint"
)

// resourceVerbs are the verbs by which an API server authorizes requests for resources, including the verbs of RBAC, certificates
// and impersonation. pathVerbs are the verbs for paths.
var (
	resourceVerbs = []string{
		"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
		"use", "bind", "escalate", "impersonate", "approve", "sign", "attest", "proxy",
	}
	pathVerbs = []string{"get", "post", "put", "patch", "delete", "head", "options"}
	// verbPrefixes are the prefixes of verbs with a variable part.
	verbPrefixes = []string{"impersonate:", "impersonate-on:", "associated-node:", "arbitrary-node:"}
)

// verbNotes returns a note if a verb is unknown and no rule names it.
func (c *Catalog) verbNotes(verb string, path bool) []string {
	usual := resourceVerbs
	if path {
		usual = pathVerbs
	}
	if isVerb(verb, usual) || c.anyRule(func(r *rbacv1.PolicyRule) bool { return slices.Contains(r.Verbs, verb) }) {
		return nil // a custom verb, if any
	}
	note := fmt.Sprintf("%q is not a verb that Kubernetes uses", verb)
	if near := Nearest(verb, usual); near != "" && !isVerb(verb, resourceVerbs) {
		note += fmt.Sprintf(": did you mean %q?", near)
	}
	return []string{note}
}

func isVerb(verb string, usual []string) bool {
	return verb == rbacv1.VerbAll || slices.Contains(usual, verb) ||
		slices.ContainsFunc(verbPrefixes, func(prefix string) bool { return strings.HasPrefix(verb, prefix) })
}

// names returns the names of all resources in the catalog. If group is not nil, it returns only the names of the resources of the
// group.
func (c *Catalog) names(group *string) []string {
	var out []string
	for i := range c.resources {
		if r := &c.resources[i]; group == nil || r.group == *group {
			out = append(out, r.name)
		}
	}
	return out
}

// Lint returns the likely mistakes in a valid rule: parts of it that match nothing that exists.
func (c *Catalog) Lint(r *rbacv1.PolicyRule) (faults []string) {
	usual := resourceVerbs
	if len(r.NonResourceURLs) > 0 {
		usual = pathVerbs
	}
	for _, verb := range r.Verbs {
		if isVerb(verb, usual) || isVerb(verb, resourceVerbs) {
			continue
		}
		if near := Nearest(verb, usual); near != "" {
			faults = append(faults, fmt.Sprintf("verb %q: did you mean %q?", verb, near))
		}
	}
	for _, group := range r.APIGroups {
		if bare, _, versioned := strings.Cut(group, "/"); versioned {
			faults = append(faults, fmt.Sprintf("API group %q: groups are named without a version, as %q", group, bare))
		} else if group == "v1" || group == "core" {
			faults = append(faults, fmt.Sprintf("API group %q: the core group is named \"\"", group))
		}
	}
	if len(r.APIGroups)*len(r.Resources) > maxPieces {
		return faults
	}
	for _, text := range r.Resources {
		if fault := c.lintResource(text, r.APIGroups); fault != "" {
			faults = append(faults, fault)
		}
	}
	return faults
}

// lintResource returns a fault if none of the groups has the resource, with the likely intended one.
func (c *Catalog) lintResource(text string, groups []string) string {
	name, sub, isSub := strings.Cut(text, "/")
	if name == rbacv1.ResourceAll {
		return ""
	}
	var in, elsewhere *resource
	for i := range c.resources {
		r := &c.resources[i]
		switch {
		case r.name == name && (slices.Contains(groups, r.group) || slices.Contains(groups, rbacv1.APIGroupAll)):
			in = r
		case r.name == name:
			elsewhere = r
		}
	}
	unknownGroup := func(g string) bool { return g != rbacv1.APIGroupAll && !c.hasGroup(g) }
	switch {
	case in != nil && isSub && !slices.Contains(in.subresources, sub) && sub != "finalizers":
		if near := Nearest(sub, in.subresources); near != "" {
			return fmt.Sprintf("resource %q: did you mean %q?", text, name+"/"+near)
		}
	case in != nil || slices.ContainsFunc(groups, unknownGroup):
	case elsewhere != nil:
		return fmt.Sprintf("resource %q: it is in API group %q", text, elsewhere.group)
	default:
		return c.lintName(text, name, groups)
	}
	return ""
}

func (c *Catalog) lintName(text, name string, groups []string) string {
	lower := strings.ToLower(name)
	for i := range c.resources {
		r := &c.resources[i]
		in := slices.Contains(groups, r.group) || slices.Contains(groups, rbacv1.APIGroupAll)
		if in && (r.name == lower || slices.Contains(r.aliases, lower)) {
			return fmt.Sprintf("resource %q: did you mean %q?", text, r.name+strings.TrimPrefix(text, name))
		}
	}
	for _, g := range groups {
		if near := Nearest(lower, c.names(&g)); near != "" {
			return fmt.Sprintf("resource %q: did you mean %q?", text, near+strings.TrimPrefix(text, name))
		}
	}
	return ""
}

// Nearest returns the candidate that word is most likely a misspelling of, or an empty string. All candidates are in lower case.
// A word that equals a candidate is not a misspelling of it; a word that differs only in case is.
func Nearest(word string, candidates []string) string {
	lower := strings.ToLower(word)
	best, found := len(word)/2+1, ""
	for _, c := range candidates {
		if max(len(lower)-len(c), len(c)-len(lower)) >= best {
			continue
		}
		if d := hint.Distance(lower, c); d < best && c != word {
			best, found = d, c
		}
	}
	return found
}
