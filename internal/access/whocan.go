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
	req := (&Subject{}).request(verb, &t)
	found := search{request: req, named: t.Name != "", roles: map[rbac.Ref]verdict{}, dangling: map[rbac.Ref]bool{}, unread: map[rbac.Ref]bool{}, policy: p}
	for g := range p.index.Grants() {
		if holdsAt(&g, &t) {
			found.add(&g)
		}
	}
	bySubject := func(a, b Via) int { return cmp.Or(compareSubjects(a.Subject, b.Subject), compareVias(a, b)) }
	return Holders{
		Verb: verb, Target: t, Grants: append([]Via{}, sortVias(found.allowing, bySubject)...),
		Notes: append([]string{mastersNote}, found.notes()...),
	}
}

// search sorts grants by whether they allow.
type search struct {
	request rbac.Request
	named   bool
	// roles holds what is known of a role, which many bindings may grant.
	roles    map[rbac.Ref]verdict
	allowing []Via
	limited  []Via // to some names, where none is asked for
	dangling map[rbac.Ref]bool
	unread   map[rbac.Ref]bool // bindings of roles that could not be read
	policy   *Policy
}

type verdict struct {
	rules   []rbacv1.PolicyRule // that allow
	limited bool
}

func (s *search) add(g *rbac.Grant) {
	if g.Dangling && s.policy.unread[g.Role] {
		s.unread[g.Binding] = true
		return
	}
	if g.Dangling {
		s.dangling[g.Binding] = true
		return
	}
	v, known := s.roles[g.Role]
	if !known {
		v.rules = allowing(g.Rules, s.request)
		v.limited = len(v.rules) == 0 && !s.named && len(allowing(unlimited(g.Rules), s.request)) > 0
		s.roles[g.Role] = v
	}
	switch {
	case len(v.rules) > 0:
		s.allowing = append(s.allowing, viaOf(g, v.rules))
	case v.limited:
		s.limited = append(s.limited, viaOf(g, nil))
	}
}

func (s *search) notes() (notes []string) {
	if n := len(sortVias(s.limited, compareVias)); n > 0 {
		notes = append(notes, counted(n, "grant allows", "grants allow")+" it for some names only; ask with a name to see them")
	}
	if n := len(s.unread); n > 0 {
		notes = append(notes, counted(n, "binding refers to a role", "bindings refer to roles")+" that could not be read")
	}
	if n := len(s.dangling); n > 0 {
		notes = append(notes, counted(n, "binding refers to a role that does not", "bindings refer to roles that do not")+" exist")
	}
	return notes
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
