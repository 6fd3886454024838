package access

import (
	"cmp"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/rbac"
)

// Policy answers questions about an index. The index may go on changing; each
// answer is then about moments close to each other.
type Policy struct{ index *rbac.Index }

// New returns a policy over an index.
func New(index *rbac.Index) *Policy { return &Policy{index: index} }

// Object names a policy object.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func objectOf(r rbac.Ref) Object { return Object{r.Kind.String(), r.Namespace, r.Name} }

// String is KIND/NAME or KIND/NAMESPACE/NAME.
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + "/" + o.Name
	}
	return o.Kind + "/" + o.Namespace + "/" + o.Name
}

// Via is how something is granted: a subject has a role by a binding.
type Via struct {
	Subject rbacv1.Subject `json:"subject"`
	Binding Object         `json:"binding"`
	Role    Object         `json:"role"`
	// Namespace is where the grant holds; empty for everywhere.
	Namespace string `json:"namespace,omitempty"`
	// Rules are those of the role that the answer is about.
	Rules []rbacv1.PolicyRule `json:"rules,omitempty"`
}

func viaOf(g *rbac.Grant, rules []rbacv1.PolicyRule) Via {
	return Via{Subject: g.Subject, Binding: objectOf(g.Binding), Role: objectOf(g.Role), Namespace: g.Binding.Namespace, Rules: rules}
}

// compareVias orders grants by where they hold, everywhere first, then by
// binding and subject.
func compareVias(a, b Via) int {
	return cmp.Or(
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Binding.Name, b.Binding.Name),
		compareSubjects(a.Subject, b.Subject),
	)
}

func compareSubjects(a, b rbacv1.Subject) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// sortVias orders grants, and drops those of a subject that its binding lists
// twice.
func sortVias(vias []Via, compare func(a, b Via) int) []Via {
	slices.SortFunc(vias, compare)
	return slices.CompactFunc(vias, func(a, b Via) bool {
		return a.Binding == b.Binding && compareSubjects(a.Subject, b.Subject) == 0
	})
}

// groups returns the API groups a target may be of: its own or, where that is
// not known, those in which some role in use names the resource.
func (p *Policy) groups(t *Target) []string {
	if !t.AnyGroup {
		return []string{t.APIGroup}
	}
	found := map[string]bool{}
	name := t.joined()
	seen := map[rbac.Ref]bool{}
	for g := range p.index.Grants() {
		if seen[g.Role] {
			continue
		}
		seen[g.Role] = true
		for i := range g.Rules {
			if slices.Contains(g.Rules[i].Resources, name) || slices.Contains(g.Rules[i].Resources, t.Resource) {
				for _, group := range g.Rules[i].APIGroups {
					found[group] = true
				}
			}
		}
	}
	delete(found, rbacv1.APIGroupAll)
	if len(found) == 0 {
		return []string{noGroup}
	}
	return sortedKeys(found)
}

// noGroup is in no rule, as it cannot be the name of a group. Only rules for
// every group match it.
const noGroup = "(unknown)"

func sortedKeys(set map[string]bool) []string {
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// requests are the requests a question stands for: one for each API group.
func (p *Policy) requests(s *Subject, verb string, t *Target) []rbac.Request {
	if t.Path != "" {
		return []rbac.Request{{User: s.User, Groups: s.Groups, Verb: verb, Path: t.Path}}
	}
	var out []rbac.Request
	for _, group := range p.groups(t) {
		out = append(out, rbac.Request{
			User: s.User, Groups: s.Groups, Verb: verb, ResourceRequest: true, APIGroup: group,
			Resource: t.Resource, Subresource: t.Subresource, Name: t.Name, Namespace: t.Namespace,
		})
	}
	return out
}

// allowing returns those of the rules that allow one of the requests.
func allowing(rules []rbacv1.PolicyRule, requests []rbac.Request) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for i := range rules {
		if slices.ContainsFunc(requests, func(r rbac.Request) bool { return rbac.RuleAllows(&rules[i], r) }) {
			out = append(out, rules[i])
		}
	}
	return out
}
