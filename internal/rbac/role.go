package rbac

import (
	"slices"
	"strings"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
)

const (
	// maxScanned is the number of resources and URLs up to which the rules of a role are tested one by one. Larger roles look up
	// rules by resource.
	maxScanned = 12
	// maxNameKeys is the limit of resources times names up to which a rule is indexed by each name, so that the size of the index
	// is linear in the size of the policy.
	maxNameKeys = 1024
)

// role is the compiled rules of a Role or ClusterRole. It never changes.
type role struct {
	source []rbacv1.PolicyRule
	rules  []rule

	byKey    map[ruleKey][]*rule // nil for roles small enough to scan
	named    bool                // a key has a name
	patterns []*rule             // rules with a URL that ends in "*"
}

// ruleKey is the key by which a rule is found. For a URL, target.resource is the exact path. The key with an empty name has
// the rules for every name.
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
	if size > maxScanned {
		r.indexByKey()
	}
	return r
}

func (r *role) indexByKey() {
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

// eachKey calls yield with each key of the rule. URLs that end in "*" have none.
func (r *rule) eachKey(yield func(ruleKey)) {
	for _, url := range r.urls {
		if !isPattern(url) {
			yield(ruleKey{url: true, target: target{resource: url}})
		}
	}
	names := r.names.items
	split := len(names) > 0 && len(names)*len(r.targets) <= maxNameKeys
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
	if anyAllowsExceptTarget(r.byKey[ruleKey{target: t}], q) {
		return true
	}
	return r.named && q.name != "" && anyAllowsExceptTarget(r.byKey[ruleKey{target: t, name: q.name}], q)
}

func anyAllowsExceptTarget(rules []*rule, q *query) bool {
	for _, r := range rules {
		if r.allowsExceptTarget(q) {
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

// slot is the place of a role. It exists while the role exists or a grant refers to the role.
type slot struct {
	ref  Ref
	role atomic.Pointer[role] // nil while there is no such role

	// Only the writer uses the other fields.
	version uint64
	refs    int               // number of grants of the role
	wide    map[*scope]*grant // the grants in wide scopes
}

func (s *slot) dangling() bool { return s.refs > 0 && s.role.Load() == nil }

func compareSlots(a, b *slot) int {
	if a.ref.Kind != b.ref.Kind {
		return int(a.ref.Kind) - int(b.ref.Kind)
	}
	return strings.Compare(a.ref.Name, b.ref.Name)
}

// smallSet is the size up to which a set is searched without a hash table.
const smallSet = 8

// set is a set of strings. It may contain every string.
type set struct {
	all   bool
	items []string
	index map[string]struct{} // nil up to smallSet items
}

// newSet returns a set of items. If items contain wildcard, which may be empty for none, the set contains every string.
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

// commonVerbs are tested as bits. Other verbs are compared as strings.
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

// rule is a compiled PolicyRule. Its zero value matches nothing.
type rule struct {
	verbBits uint32
	verbs    set
	groups   set
	names    set // without items: every name
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
	return r.allowsExceptTarget(q) && r.matchesTarget(q)
}

func (r *rule) allowsURL(q *query) bool {
	if !r.allowsVerb(q) || q.everyName && len(r.names.items) > 0 {
		return false
	}
	for _, url := range r.urls {
		if urlMatches(url, q.path) {
			return true
		}
	}
	return false
}

// allowsExceptTarget tests all of the rule except its resources.
func (r *rule) allowsExceptTarget(q *query) bool {
	return r.allowsVerb(q) && r.groups.has(q.group) && r.allowsName(q)
}

func (r *rule) allowsVerb(q *query) bool {
	if q.verbBit != 0 {
		return r.verbs.all || r.verbBits&q.verbBit != 0
	}
	return r.verbs.has(q.verb)
}

// allowsName tests the name. A rule with names does not allow a request without a name, so create and deletecollection
// cannot be granted by name. As in Kubernetes, a rule may list the empty name, which matches such requests.
func (r *rule) allowsName(q *query) bool {
	if len(r.names.items) == 0 {
		return true
	}
	return !q.everyName && r.names.has(q.name)
}

// matchesTarget compares resources. "*" matches every resource and subresource, "*/sub" that subresource of every resource.
// "pods/*" is no pattern: it matches only a subresource with the name "*".
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

// urlMatches compares the URL of a rule with a path. Only stars at the end are wildcards; several have the same meaning as one.
func urlMatches(url, path string) bool {
	if url == path {
		return true
	}
	return isPattern(url) && strings.HasPrefix(path, strings.TrimRight(url, "*"))
}

// RuleAllows reports whether a rule allows a request, if it is granted to the user in the namespace of the request.
func RuleAllows(p *rbacv1.PolicyRule, req Request) bool {
	r, q := compileRule(p), newQuery(&req)
	return r.allows(&q)
}
