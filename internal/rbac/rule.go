package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

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
