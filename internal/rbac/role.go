package rbac

import (
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
