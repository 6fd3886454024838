package access

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/rbac"
)

// Holders are the subjects whom a policy allows a request.
type Holders struct {
	Verb   string `json:"verb"`
	Target Target `json:"target"`
	// Grants are ordered by subject. A subject that several bindings allow is listed for each.
	Grants []Via    `json:"grants"`
	Notes  []string `json:"notes,omitempty"`
}

// WhoCan returns each subject in a binding that may do verb with the target. Groups are listed, not their members.
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

// search collects the grants that allow a request, and those that come close.
type search struct {
	request rbac.Request
	named   bool
	// roles are the results by role, since many bindings may grant a role.
	roles    map[rbac.Ref]verdict
	allowing []Via
	limited  []Via // grants for some names only, if the request has no name
	dangling map[rbac.Ref]bool
	unread   map[rbac.Ref]bool // bindings whose role could not be read
	policy   *Policy
}

type verdict struct {
	rules   []rbacv1.PolicyRule // the rules that allow the request
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
		notes = append(notes, counted(n, "grant allows", "grants allow")+" it for some names only; repeat the question with a name to see them")
	}
	if n := len(s.unread); n > 0 {
		notes = append(notes, counted(n, "binding refers to a role", "bindings refer to roles")+" that could not be read")
	}
	if n := len(s.dangling); n > 0 {
		notes = append(notes, counted(n, "binding refers to a role that does not", "bindings refer to roles that do not")+" exist")
	}
	return notes
}

// holdsAt reports whether a grant applies in the namespace of the target.
func holdsAt(g *rbac.Grant, t *Target) bool {
	ns := g.Binding.Namespace
	return ns == "" || t.Path == "" && ns == t.Namespace
}

// unlimited returns the rules without their resource names.
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

// Permissions are what a policy allows a subject.
type Permissions struct {
	Subject Subject `json:"subject"`
	// Namespace is the namespace of the question; empty for all.
	Namespace string `json:"namespace,omitempty"`
	// WithoutRBAC is set if the API server allows the subject everything without RBAC.
	WithoutRBAC bool         `json:"withoutRBAC,omitempty"`
	Permissions []Permission `json:"permissions"`
	Notes       []string     `json:"notes,omitempty"`
}

// Permission is what a subject may do with one resource or path in one namespace, by all its bindings together.
type Permission struct {
	// Namespace is where the permission applies; empty for everywhere.
	Namespace string `json:"namespace,omitempty"`
	// APIGroups and Resources have one item each, unless a rule has more than maxPieces combinations of them. Both are empty
	// for paths.
	APIGroups       []string `json:"apiGroups,omitempty"`
	Resources       []string `json:"resources,omitempty"`
	ResourceNames   []string `json:"resourceNames,omitempty"`
	NonResourceURLs []string `json:"nonResourceURLs,omitempty"`
	Verbs           []string `json:"verbs"`
	// Via is empty if the bindings are unknown.
	Via []Via `json:"via"`
}

// maxPieces is the number of combinations of group and resource up to which a rule is divided into Permissions.
const maxPieces = 4096

// List returns what a subject may do in a namespace, by bindings there and by ClusterRoleBindings. An empty namespace means
// all. A permission that several bindings grant is listed with all of them.
func (p *Policy) List(s Subject, namespace string) Permissions {
	out := Permissions{Subject: s, Namespace: namespace, WithoutRBAC: s.isMaster(), Permissions: []Permission{}}
	if out.WithoutRBAC {
		out.Notes = append(out.Notes, mastersNote)
	}
	merged := map[string]*Permission{}
	dangling := map[string]bool{}
	for g := range p.index.Grants() {
		switch {
		case !s.matches(&g.Subject), namespace != "" && g.Binding.Namespace != "" && g.Binding.Namespace != namespace:
		case g.Dangling:
			dangling[objectOf(g.Binding).String()+" refers to "+objectOf(g.Role).String()+", "+p.lacking(g.Role)] = true
		default:
			merge(merged, &g)
		}
	}
	out.Permissions = sorted(merged)
	out.Notes = append(out.Notes, sortedKeys(dangling)...)
	return out
}

// ListRules returns what the rules of a SelfSubjectRulesReview allow in a namespace. Such rules do not contain which bindings
// grant them, or which of them apply elsewhere too.
func ListRules(s Subject, namespace string, rules []rbacv1.PolicyRule) Permissions {
	merged := map[string]*Permission{}
	for i := range rules {
		in := namespace
		if len(rules[i].NonResourceURLs) > 0 {
			in = ""
		}
		mergeRule(merged, &rules[i], in, nil)
	}
	return Permissions{Subject: s, Namespace: namespace, Permissions: sorted(merged)}
}

// sorted returns permissions in the order of the output.
func sorted(merged map[string]*Permission) []Permission {
	out := make([]Permission, 0, len(merged))
	for _, m := range merged {
		slices.SortFunc(m.Verbs, compareVerbs)
		m.Via = append([]Via{}, sortVias(m.Via, compareVias)...)
		out = append(out, *m)
	}
	slices.SortFunc(out, comparePermissions)
	return out
}

// merge adds the rules of a grant.
func merge(merged map[string]*Permission, g *rbac.Grant) {
	via := viaOf(g, nil)
	for i := range g.Rules {
		mergeRule(merged, &g.Rules[i], g.Binding.Namespace, &via)
	}
}

// mergeRule adds a rule that applies in a namespace. via is the grant, or nil if it is unknown.
func mergeRule(merged map[string]*Permission, r *rbacv1.PolicyRule, namespace string, via *Via) {
	for _, piece := range pieces(r, namespace) {
		key := piece.key()
		m := merged[key]
		if m == nil {
			m = &piece
			merged[key] = m
		}
		m.Verbs = joinVerbs(m.Verbs, r.Verbs)
		if via != nil {
			m.Via = append(m.Via, *via)
		}
	}
}

// pieces divides a rule into Permissions without verbs. Paths are in no namespace, so a grant in a namespace gives none.
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

// joinVerbs returns the union of two lists of verbs; "*" replaces all others.
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

// usualVerbs are verbs in the usual order.
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
