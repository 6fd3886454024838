package rbac

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// atom is a rule of a grant with one of its keys. Atoms are ordered by key, then by shape, then by role. So a search tests
// each distinct shape with a key once, with the first role that has it, and skips the others.
type atom struct {
	key   ruleKey
	shape string // never empty
	grant *grant
	rule  *rule
}

// patternKey is the key of rules with URLs that end in "*". It is not the key of an exact URL, which cannot be a star alone.
var patternKey = ruleKey{url: true, target: anyTarget}

func compareKeys(a, b *ruleKey) int {
	if a.url != b.url {
		if a.url {
			return 1
		}
		return -1
	}
	if c := strings.Compare(a.target.resource, b.target.resource); c != 0 {
		return c
	}
	if c := strings.Compare(a.target.sub, b.target.sub); c != 0 {
		return c
	}
	return strings.Compare(a.name, b.name)
}

func compareAtoms(a, b atom) int {
	if c := compareKeys(&a.key, &b.key); c != 0 {
		return c
	}
	if c := strings.Compare(a.shape, b.shape); c != 0 {
		return c
	}
	return compareGrants(a.grant, b.grant)
}

// shapeOf returns a text for what a rule tests besides its key. It contains counts and lengths, so that different rules have
// different texts. Rules of the same shape with the same key give the same decisions.
func (r *rule) shapeOf() string {
	var b []byte
	for _, part := range [][]string{r.verbs.items, r.groups.items, r.names.items, r.patternURLs()} {
		b = append(strconv.AppendInt(b, int64(len(part)), 10), ' ')
		for _, item := range slices.Sorted(slices.Values(part)) {
			b = append(strconv.AppendInt(b, int64(len(item)), 10), ' ')
			b = append(b, item...)
		}
	}
	return string(b)
}

func (r *rule) patternURLs() []string {
	if r.hasPattern() {
		return r.urls
	}
	return nil
}

// eachAtom calls yield for each atom of g under the role.
func (r *role) eachAtom(g *grant, yield func(atom)) {
	for i := range r.rules {
		rule := &r.rules[i]
		shape := rule.shapeOf()
		rule.eachKey(func(k ruleKey) { yield(atom{k, shape, g, rule}) })
		if rule.hasPattern() {
			yield(atom{patternKey, shape, g, rule})
		}
	}
}

// add and remove change a state that is not stored yet.
func (st *scopeState) add(s *scope, g *grant) {
	st.count++
	st.all = st.all.insert(g, compareGrants)
	if g.slot.wide == nil {
		g.slot.wide = map[*scope]*grant{}
	}
	g.slot.wide[s] = g
	st.addAtoms(g, g.slot.role.Load())
}

func (st *scopeState) remove(s *scope, g *grant) {
	st.count--
	st.all = st.all.remove(g, compareGrants)
	delete(g.slot.wide, s)
	st.removeAtoms(g, g.slot.role.Load())
}

func (st *scopeState) addAtoms(g *grant, r *role) {
	if r == nil {
		st.missing = st.missing.insert(g, compareGrants)
		return
	}
	r.eachAtom(g, func(a atom) { st.atoms = st.atoms.insert(a, compareAtoms) })
}

func (st *scopeState) removeAtoms(g *grant, r *role) {
	if r == nil {
		st.missing = st.missing.remove(g, compareGrants)
		return
	}
	r.eachAtom(g, func(a atom) { st.atoms = st.atoms.remove(a, compareAtoms) })
}

// refresh updates a wide scope after the role of g changed.
func (s *scope) refresh(g *grant, before, after *role) {
	st := *s.state.Load()
	st.removeAtoms(g, before)
	st.addAtoms(g, after)
	s.state.Store(&st)
}

func (st *scopeState) findAtom(q *query) *grant {
	if q.url {
		best := st.search(ruleKey{url: true, target: target{resource: q.path}}, q, nil)
		return st.search(patternKey, q, best)
	}
	best := st.searchTarget(q.target, q, nil)
	if q.target != anyTarget {
		best = st.searchTarget(anyTarget, q, best)
	}
	if q.star != "" {
		best = st.searchTarget(target{rbacv1.ResourceAll, q.star}, q, best)
	}
	return best
}

func (st *scopeState) searchTarget(t target, q *query, best *grant) *grant {
	best = st.search(ruleKey{target: t}, q, best)
	if q.name != "" {
		best = st.search(ruleKey{target: t, name: q.name}, q, best)
	}
	return best
}

// search returns the first grant with the key that allows q, or best if that comes earlier.
func (st *scopeState) search(key ruleKey, q *query, best *grant) *grant {
	shape := ""
	for {
		a := nextAtom(st.atoms, &key, shape)
		if a == nil || compareKeys(&a.key, &key) != 0 {
			return best
		}
		if (best == nil || compareGrants(a.grant, best) < 0) && a.allows(q) {
			best = a.grant
		}
		shape = a.shape
	}
}

// allows tests all of the rule except the resource, which the key has matched.
func (a *atom) allows(q *query) bool {
	if q.url {
		return a.rule.allowsURL(q)
	}
	return a.rule.allowsExceptTarget(q)
}

// nextAtom returns the first atom after all atoms of the key and shape.
func nextAtom(t *tree[atom], key *ruleKey, shape string) *atom {
	var next *atom
	for t != nil {
		c := compareKeys(&t.item.key, key)
		if c > 0 || c == 0 && t.item.shape > shape {
			next, t = &t.item, t.left
		} else {
			t = t.right
		}
	}
	return next
}

// tree is an immutable ordered set: a treap whose insert and remove copy the path that they change and share the rest. A nil
// *tree is empty.
type tree[T any] struct {
	item        T
	priority    uint32
	left, right *tree[T]
}

// insert returns the set with item, which replaces an equal one.
func (t *tree[T]) insert(item T, compare func(a, b T) int) *tree[T] {
	return t.add(&tree[T]{item: item, priority: rand.Uint32()}, compare)
}

// add takes ownership of n, a single node.
func (t *tree[T]) add(n *tree[T], compare func(a, b T) int) *tree[T] {
	if t == nil {
		return n
	}
	root := *t
	switch c := compare(n.item, t.item); {
	case c == 0:
		root.item = n.item
	case c < 0:
		root.left = t.left.add(n, compare)
		if root.left.priority > root.priority {
			return root.rotateRight()
		}
	default:
		root.right = t.right.add(n, compare)
		if root.right.priority > root.priority {
			return root.rotateLeft()
		}
	}
	return &root
}

// rotateRight and rotateLeft change the child in place, because add has just made it.
func (t tree[T]) rotateRight() *tree[T] {
	l := t.left
	t.left, l.right = l.right, &t
	return l
}

func (t tree[T]) rotateLeft() *tree[T] {
	r := t.right
	t.right, r.left = r.left, &t
	return r
}

// remove returns the set without the item equal to item.
func (t *tree[T]) remove(item T, compare func(a, b T) int) *tree[T] {
	if t == nil {
		return nil
	}
	c := compare(item, t.item)
	if c == 0 {
		return merge(t.left, t.right)
	}
	root := *t
	if c < 0 {
		root.left = t.left.remove(item, compare)
	} else {
		root.right = t.right.remove(item, compare)
	}
	return &root
}

// merge returns the union of two sets. All items of a are before the items of b.
func merge[T any](a, b *tree[T]) *tree[T] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		root := *a
		root.right = merge(a.right, b)
		return &root
	default:
		root := *b
		root.left = merge(a, b.left)
		return &root
	}
}

// each calls yield for each item in order until it returns false, and reports whether it reached the end.
func (t *tree[T]) each(yield func(T) bool) bool {
	return t == nil || t.left.each(yield) && yield(t.item) && t.right.each(yield)
}
