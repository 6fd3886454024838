package rbac

import (
	"slices"
	"strings"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
)

const (
	// widen is the number of distinct roles in a scope beyond which it keeps
	// a tree of rules; narrow is where it goes back, with a gap so that a
	// single binding coming and going does not rebuild it each time.
	widen  = 8
	narrow = 5
)

// scopeKey names a scope: one identity in one namespace, or cluster-wide where
// namespace is empty. Service accounts are users here.
type scopeKey struct {
	group           bool
	name, namespace string
}

// scope holds what one identity is granted in one namespace or cluster-wide.
// Readers load its state; the writer replaces it.
type scope struct {
	key   scopeKey
	state atomic.Pointer[scopeState]
}

// scopeState never changes once stored. Either few is used, or, in a wide
// scope, the trees. All are in the order of compareSlots.
type scopeState struct {
	few []*grant

	count   int
	all     *tree[*grant]
	missing *tree[*grant] // those of all whose role does not exist
	atoms   *tree[atom]
}

func (st *scopeState) wide() bool  { return st.count > 0 }
func (st *scopeState) empty() bool { return st.count == 0 && len(st.few) == 0 }

func (st *scopeState) each(yield func(*grant) bool) bool {
	for _, g := range st.few {
		if !yield(g) {
			return false
		}
	}
	return st.all.each(yield)
}

// find returns the first grant, by role, that allows q.
func (st *scopeState) find(q *query) *grant {
	if st.wide() {
		return st.findAtom(q)
	}
	for _, g := range st.few {
		if r := g.slot.role.Load(); r != nil && r.allows(q) {
			return g
		}
	}
	return nil
}

// grant is one role granted in one scope, by one binding or several.
type grant struct {
	slot *slot
	// first is the binding first by name: the one a decision reports.
	first atomic.Pointer[entry]
	// entries, sorted by the binding's name, belongs to the writer.
	entries []*entry
}

func compareGrants(a, b *grant) int { return compareSlots(a.slot, b.slot) }

// entry is one binding's effect on one identity.
type entry struct {
	binding *binding
	index   int // into the binding's subjects
	reason  atomic.Pointer[string]
}

func (e *entry) subject() rbacv1.Subject { return e.binding.subjects[e.index] }

func (g *grant) search(name string) (int, bool) {
	return slices.BinarySearchFunc(g.entries, name, func(e *entry, name string) int {
		return strings.Compare(e.binding.ref.Name, name)
	})
}

// put adds e, or replaces the entry of an earlier version of its binding. The
// first of several subjects that mean the same identity stays.
func (g *grant) put(e *entry) {
	i, found := g.search(e.binding.ref.Name)
	switch {
	case found && g.entries[i].binding == e.binding:
		return
	case found:
		g.entries[i] = e
	default:
		g.entries = slices.Insert(g.entries, i, e)
	}
	g.first.Store(g.entries[0])
}

// drop removes the entry of the named binding. first keeps the last entry
// when none is left, for readers that still hold the grant.
func (g *grant) drop(name string) {
	i, found := g.search(name)
	if !found {
		return
	}
	g.entries = slices.Delete(g.entries, i, i+1)
	if len(g.entries) > 0 {
		g.first.Store(g.entries[0])
	}
}

// grantOf returns the scope's grant of the role, or nil.
func (s *scope) grantOf(sl *slot) *grant {
	if g := sl.wide[s]; g != nil {
		return g
	}
	for _, g := range s.state.Load().few {
		if g.slot == sl {
			return g
		}
	}
	return nil
}

// attach adds a grant of a role not granted in the scope before.
func (s *scope) attach(g *grant) {
	st := *s.state.Load()
	if st.wide() {
		st.join(s, g)
	} else {
		i, _ := slices.BinarySearchFunc(st.few, g, compareGrants)
		st.few = slices.Insert(slices.Clip(st.few), i, g)
		if len(st.few) > widen {
			st = widened(s, st.few)
		}
	}
	s.state.Store(&st)
}

// detach removes a grant.
func (s *scope) detach(g *grant) {
	st := *s.state.Load()
	if st.wide() {
		st.leave(s, g)
		if st.count < narrow {
			st = narrowed(s, &st)
		}
	} else {
		st.few = slices.DeleteFunc(slices.Clone(st.few), func(o *grant) bool { return o == g })
	}
	s.state.Store(&st)
}

func widened(s *scope, grants []*grant) scopeState {
	var st scopeState
	for _, g := range grants {
		st.join(s, g)
	}
	return st
}

func narrowed(s *scope, wide *scopeState) scopeState {
	var st scopeState
	wide.all.each(func(g *grant) bool {
		delete(g.slot.wide, s)
		st.few = append(st.few, g)
		return true
	})
	return st
}
