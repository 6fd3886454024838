package access

import (
	"cmp"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/rbac"
)

// Holders are the subjects that a policy allows something.
type Holders struct {
	Verb   string `json:"verb"`
	Target Target `json:"target"`
	// Grants are ordered by subject; one that is allowed in several ways is
	// there several times.
	Grants []Via    `json:"grants"`
	Notes  []string `json:"notes,omitempty"`
}

// WhoCan returns each subject, as the bindings name it, that may do something:
// users and accounts by name, groups without their members.
func (p *Policy) WhoCan(verb string, t Target) Holders {
	requests := p.requests(&Subject{}, verb, &t)
	tested := map[rbac.Ref][]rbacv1.PolicyRule{}
	limited := map[rbac.Ref]bool{}
	out := Holders{Verb: verb, Target: t, Grants: []Via{}}
	dangling := map[rbac.Ref]bool{}
	var some []Via
	for g := range p.index.Grants() {
		if !holdsAt(&g, &t) {
			continue
		}
		if g.Dangling {
			dangling[g.Binding] = true
			continue
		}
		rules, done := tested[g.Role]
		if !done {
			rules = allowing(g.Rules, requests)
			tested[g.Role] = rules
			limited[g.Role] = len(rules) == 0 && t.Name == "" && len(allowing(unlimited(g.Rules), requests)) > 0
		}
		if len(rules) > 0 {
			out.Grants = append(out.Grants, viaOf(&g, rules))
		} else if limited[g.Role] {
			some = append(some, viaOf(&g, nil))
		}
	}
	out.Grants = sortVias(out.Grants, func(a, b Via) int { return cmp.Or(compareSubjects(a.Subject, b.Subject), compareVias(a, b)) })
	out.Notes = append(t.groupNotes(requests), mastersNote)
	if n := len(sortVias(some, compareVias)); n > 0 {
		out.Notes = append(out.Notes, counted(n, "grant allows", "grants allow")+" it for some names only; ask with a name to see them")
	}
	if len(dangling) > 0 {
		out.Notes = append(out.Notes, counted(len(dangling), "binding refers to a role that does not", "bindings refer to roles that do not")+" exist")
	}
	return out
}

// holdsAt tells whether a grant holds where the target is.
func holdsAt(g *rbac.Grant, t *Target) bool {
	ns := g.Binding.Namespace
	return ns == "" || t.Path == "" && ns == t.Namespace
}

// unlimited returns the rules as they would be without names.
func unlimited(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	out := make([]rbacv1.PolicyRule, len(rules))
	for i, r := range rules {
		out[i] = r
		out[i].ResourceNames = nil
	}
	return out
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
