package access

import (
	"cmp"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/rbac"
)

// Permissions are all that a policy grants a subject.
type Permissions struct {
	Subject Subject `json:"subject"`
	// Unasked is set where the API server allows everything without asking
	// the policy.
	Unasked     bool         `json:"withoutRBAC,omitempty"`
	Permissions []Permission `json:"permissions"`
	Notes       []string     `json:"notes,omitempty"`
}

// Permission is what may be done with one resource or path somewhere, by all
// bindings that add to it.
type Permission struct {
	// Namespace is where it holds; empty for everywhere.
	Namespace string `json:"namespace,omitempty"`
	// APIGroups and Resources have one item each, but for a rule with so many
	// that it is kept whole. Both are empty for paths.
	APIGroups       []string `json:"apiGroups,omitempty"`
	Resources       []string `json:"resources,omitempty"`
	ResourceNames   []string `json:"resourceNames,omitempty"`
	NonResourceURLs []string `json:"nonResourceURLs,omitempty"`
	Verbs           []string `json:"verbs"`
	Via             []Via    `json:"via"`
}

// maxPieces is the number of combinations of group and resource up to which a
// rule is taken apart.
const maxPieces = 4096

// List returns what a subject may do in all namespaces. What one grant allows
// and another allows too is listed with both.
func (p *Policy) List(s Subject) Permissions {
	out := Permissions{Subject: s, Unasked: s.isMaster(), Permissions: []Permission{}}
	if out.Unasked {
		out.Notes = append(out.Notes, mastersNote)
	}
	merged := map[string]*Permission{}
	dangling := map[string]bool{}
	for g := range p.index.Grants() {
		switch {
		case !s.matches(&g.Subject):
		case g.Dangling:
			dangling[objectOf(g.Binding).String()+" refers to "+objectOf(g.Role).String()+", which does not exist"] = true
		default:
			merge(merged, &g)
		}
	}
	for _, m := range merged {
		slices.SortFunc(m.Verbs, compareVerbs)
		m.Via = sortVias(m.Via, compareVias)
		out.Permissions = append(out.Permissions, *m)
	}
	slices.SortFunc(out.Permissions, comparePermissions)
	out.Notes = append(out.Notes, sortedKeys(dangling)...)
	return out
}

// merge adds what a grant gives to what is there.
func merge(merged map[string]*Permission, g *rbac.Grant) {
	for _, r := range g.Rules {
		for _, piece := range pieces(&r, g.Binding.Namespace) {
			key := piece.key()
			m := merged[key]
			if m == nil {
				m = &piece
				merged[key] = m
			}
			m.Verbs = joinVerbs(m.Verbs, r.Verbs)
			m.Via = append(m.Via, viaOf(g, nil))
		}
	}
}

// pieces takes a rule apart, without its verbs. A path is in no namespace, so
// that none is granted there.
func pieces(r *rbacv1.PolicyRule, namespace string) []Permission {
	var out []Permission
	names := slices.Sorted(slices.Values(r.ResourceNames))
	if len(r.APIGroups)*len(r.Resources) > maxPieces {
		out = append(out, Permission{Namespace: namespace, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: names})
	} else {
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				out = append(out, Permission{Namespace: namespace, APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names})
			}
		}
	}
	if namespace == "" {
		for _, url := range r.NonResourceURLs {
			out = append(out, Permission{NonResourceURLs: []string{url}})
		}
	}
	return out
}

func (p *Permission) key() string {
	lists := [][]string{p.APIGroups, p.Resources, p.ResourceNames, p.NonResourceURLs}
	parts := []string{p.Namespace}
	for _, list := range lists {
		parts = append(parts, strings.Join(list, "\x00"))
	}
	return strings.Join(parts, "\x01")
}

// joinVerbs keeps each verb once; "*" stands for all.
func joinVerbs(have, more []string) []string {
	have = slices.Clone(have)
	for _, v := range more {
		if !slices.Contains(have, v) {
			have = append(have, v)
		}
	}
	if slices.Contains(have, rbacv1.VerbAll) {
		return []string{rbacv1.VerbAll}
	}
	return have
}

// usualVerbs is the order in which people say them.
var usualVerbs = [...]string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}

func compareVerbs(a, b string) int {
	rank := func(v string) int {
		if i := slices.Index(usualVerbs[:], v); i >= 0 {
			return i
		}
		return len(usualVerbs)
	}
	return cmp.Or(rank(a)-rank(b), strings.Compare(a, b))
}

func comparePermissions(a, b Permission) int {
	return cmp.Or(
		strings.Compare(a.Namespace, b.Namespace),
		slices.Compare(a.NonResourceURLs, b.NonResourceURLs),
		slices.Compare(a.APIGroups, b.APIGroups),
		slices.Compare(a.Resources, b.Resources),
		slices.Compare(a.ResourceNames, b.ResourceNames),
	)
}
