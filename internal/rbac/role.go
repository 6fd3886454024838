package rbac

import (
	"slices"
	"strings"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
)

const (
	// scanned is the number of resources and URLs up to which a role's rules
	// are tested one by one; beyond it they are looked up by resource.
	scanned = 12
	// splitNames bounds resources times names of a rule that is filed under
	// each name, so that an index stays linear in the size of the policy.
	splitNames = 1024
)

// role is a Role's or ClusterRole's rules, compiled. It never changes.
type role struct {
	source []rbacv1.PolicyRule
	rules  []rule

	byKey    map[ruleKey][]*rule // nil for roles small enough to scan
	named    bool                // some key has a name
	patterns []*rule             // rules with a URL that ends in "*"
}

// ruleKey is what rules are filed under. For a URL, target.resource is the
// exact path. An empty name holds the rules for every name.
type ruleKey struct {
	url    bool
	target target
	name   string
}

func compileRole(source []rbacv1.PolicyRule) *role {
	r := &role{source: source, rules: make([]rule, len(source))}
	size := 0
	for i := range source {
		r.rules[i] = compileRule(&source[i])
		size += len(source[i].Resources) + len(source[i].NonResourceURLs)
	}
	if size > scanned {
		r.file()
	}
	return r
}

func (r *role) file() {
	r.byKey = map[ruleKey][]*rule{}
	for i := range r.rules {
		rule := &r.rules[i]
		rule.eachKey(func(k ruleKey) {
			if l := r.byKey[k]; len(l) == 0 || l[len(l)-1] != rule {
				r.byKey[k] = append(l, rule)
			}
			r.named = r.named || k.name != ""
		})
		if rule.hasPattern() {
			r.patterns = append(r.patterns, rule)
		}
	}
}

// eachKey calls yield with each key the rule is filed under. Patterns of URLs
// have none.
func (r *rule) eachKey(yield func(ruleKey)) {
	for _, url := range r.urls {
		if !isPattern(url) {
			yield(ruleKey{url: true, target: target{resource: url}})
		}
	}
	names := r.names.items
	split := len(names) > 0 && len(names)*len(r.targets) <= splitNames
	for _, t := range r.targets {
		if !split {
			yield(ruleKey{target: t})
			continue
		}
		for _, name := range names {
			yield(ruleKey{target: t, name: name})
		}
	}
}

func (r *rule) hasPattern() bool {
	for _, url := range r.urls {
		if isPattern(url) {
			return true
		}
	}
	return false
}

func (r *role) allows(q *query) bool {
	switch {
	case r.byKey == nil:
		return anyAllows(r.rules, q)
	case q.url:
		return r.keyAllowsURL(q)
	case r.keyAllows(q, q.target), r.keyAllows(q, anyTarget):
		return true
	default:
		return q.star != "" && r.keyAllows(q, target{rbacv1.ResourceAll, q.star})
	}
}

func anyAllows(rules []rule, q *query) bool {
	for i := range rules {
		if rules[i].allows(q) {
			return true
		}
	}
	return false
}

func (r *role) keyAllows(q *query, t target) bool {
	if anyAdmits(r.byKey[ruleKey{target: t}], q) {
		return true
	}
	return r.named && q.name != "" && anyAdmits(r.byKey[ruleKey{target: t, name: q.name}], q)
}

func anyAdmits(rules []*rule, q *query) bool {
	for _, r := range rules {
		if r.admits(q) {
			return true
		}
	}
	return false
}

func (r *role) keyAllowsURL(q *query) bool {
	for _, rule := range r.byKey[ruleKey{url: true, target: target{resource: q.path}}] {
		if rule.allowsURL(q) {
			return true
		}
	}
	for _, rule := range r.patterns {
		if rule.allowsURL(q) {
			return true
		}
	}
	return false
}

// slot is where a role is found, or would be. It exists while the role does
// or a grant refers to it.
type slot struct {
	ref  Ref
	role atomic.Pointer[role] // nil while there is no such role

	// The rest belongs to the writer.
	version uint64
	refs    int               // grants that refer here
	wide    map[*scope]*grant // those of them in wide scopes
}

func (s *slot) dangling() bool { return s.refs > 0 && s.role.Load() == nil }

func compareSlots(a, b *slot) int {
	if a.ref.Kind != b.ref.Kind {
		return int(a.ref.Kind) - int(b.ref.Kind)
	}
	return strings.Compare(a.ref.Name, b.ref.Name)
}

// smallSet is the size up to which a set is scanned rather than hashed.
const smallSet = 8

// set is a set of strings that may also stand for every string.
type set struct {
	all   bool
	items []string
	index map[string]struct{} // nil up to smallSet items
}

// newSet makes a set of items, in which wildcard (if not empty) stands for all.
func newSet(items []string, wildcard string) set {
	s := set{items: items, all: wildcard != "" && slices.Contains(items, wildcard)}
	if len(items) > smallSet && !s.all {
		s.index = make(map[string]struct{}, len(items))
		for _, item := range items {
			s.index[item] = struct{}{}
		}
	}
	return s
}

func (s *set) has(item string) bool {
	if s.all {
		return true
	}
	if s.index != nil {
		_, ok := s.index[item]
		return ok
	}
	return slices.Contains(s.items, item)
}

// commonVerbs are tested as bits. Any other verb works too, by comparison.
var commonVerbs = [...]string{
	"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
	"impersonate", "bind", "escalate", "approve", "sign", "use", "post", "put",
}

func verbBit(verb string) uint32 {
	for i := range commonVerbs {
		if commonVerbs[i] == verb {
			return 1 << i
		}
	}
	return 0
}

// rule is a PolicyRule compiled. Its zero value matches nothing.
type rule struct {
	verbBits uint32
	verbs    set
	groups   set
	names    set // no items: every name
	targets  []target
	urls     []string
}

func compileRule(p *rbacv1.PolicyRule) rule {
	r := rule{
		verbs:  newSet(p.Verbs, rbacv1.VerbAll),
		groups: newSet(p.APIGroups, rbacv1.APIGroupAll),
		names:  newSet(p.ResourceNames, ""),
		urls:   p.NonResourceURLs,
	}
	for _, v := range p.Verbs {
		r.verbBits |= verbBit(v)
	}
	for _, s := range p.Resources {
		r.targets = append(r.targets, parseTarget(s))
	}
	return r
}

// allows tests every part of the rule.
func (r *rule) allows(q *query) bool {
	if q.url {
		return r.allowsURL(q)
	}
	return r.admits(q) && r.matchesTarget(q)
}

func (r *rule) allowsURL(q *query) bool {
	if !r.allowsVerb(q) || q.unnamed && len(r.names.items) > 0 {
		return false
	}
	for _, url := range r.urls {
		if urlMatches(url, q.path) {
			return true
		}
	}
	return false
}

// admits tests all of the rule but its resources.
func (r *rule) admits(q *query) bool {
	return r.allowsVerb(q) && r.groups.has(q.group) && r.allowsName(q)
}

func (r *rule) allowsVerb(q *query) bool {
	if q.verbBit != 0 {
		return r.verbs.all || r.verbBits&q.verbBit != 0
	}
	return r.verbs.has(q.verb)
}

// allowsName does not allow a request without a name through a rule that lists
// names, so create and deletecollection cannot be granted by name. As in
// Kubernetes the empty name may be listed, and is then the name of no object.
func (r *rule) allowsName(q *query) bool {
	if len(r.names.items) == 0 {
		return true
	}
	return !q.unnamed && r.names.has(q.name)
}

// matchesTarget compares resources. "*" is every resource and subresource,
// "*/sub" that subresource of every resource; "pods/*" is not a pattern and
// matches only a subresource literally named "*".
func (r *rule) matchesTarget(q *query) bool {
	for _, t := range r.targets {
		if t == q.target || t == anyTarget {
			return true
		}
		if q.star != "" && t.resource == rbacv1.ResourceAll && t.sub == q.star {
			return true
		}
	}
	return false
}

func isPattern(url string) bool { return strings.HasSuffix(url, "*") }

// urlMatches compares a rule's URL with a path. Only trailing stars are
// special, and several count as one.
func urlMatches(url, path string) bool {
	if url == path {
		return true
	}
	return isPattern(url) && strings.HasPrefix(path, strings.TrimRight(url, "*"))
}

// RuleAllows reports whether the one rule, granted where the request is made,
// would allow it. It ignores who asks.
func RuleAllows(p *rbacv1.PolicyRule, req Request) bool {
	r, q := compileRule(p), newQuery(&req)
	return r.allows(&q)
}
