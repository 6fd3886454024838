package rbac

import (
	"slices"
	"strings"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
)

const (
	// A scope with more than widen distinct roles keeps a tree of rules; with fewer than narrow it stops doing so. The numbers
	// differ so that a single binding that comes and goes does not rebuild the tree each time.
	widen  = 8
	narrow = 5
)

// scopeKey identifies a scope: an identity in a namespace or, if namespace is empty, cluster-wide. Service accounts are
// users.
type scopeKey struct {
	group           bool
	name, namespace string
}

// scope holds the grants of one identity in one namespace or cluster-wide. Readers load its state; the writer replaces it.
type scope struct {
	key   scopeKey
	state atomic.Pointer[scopeState]
}

// scopeState does not change once it is stored. It uses few or, in a wide scope, the trees. All are in the order of
// compareSlots.
type scopeState struct {
	few []*grant

	count   int
	all     *tree[*grant]
	missing *tree[*grant] // the grants whose role does not exist
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

// find returns the first grant, in the order of roles, that allows q.
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

// grant is a role in a scope, granted by one or more bindings.
type grant struct {
	slot *slot
	// first is the entry of the binding that is first by name. Decisions report it.
	first atomic.Pointer[entry]
	// entries are sorted by the name of the binding. Only the writer uses them.
	entries []*entry
}

func compareGrants(a, b *grant) int { return compareSlots(a.slot, b.slot) }

// entry is the effect of one binding on one identity.
type entry struct {
	binding *binding
	index   int // into the binding's subjects
	reason  atomic.Pointer[string]
}

func (e *entry) subject() rbacv1.Subject { return e.binding.subjects[e.index] }

func (g *grant) findEntry(name string) (int, bool) {
	return slices.BinarySearchFunc(g.entries, name, func(e *entry, name string) int {
		return strings.Compare(e.binding.ref.Name, name)
	})
}

// addEntry adds e, or replaces the entry of an earlier version of its binding. If several subjects of a binding are the same
// identity, the first one stays.
func (g *grant) addEntry(e *entry) {
	i, found := g.findEntry(e.binding.ref.Name)
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

// removeEntry removes the entry of the binding with this name. If none is left, first keeps the last entry, for readers that
// still use the grant.
func (g *grant) removeEntry(name string) {
	i, found := g.findEntry(name)
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

// addGrant adds a grant of a role that the scope does not have yet.
func (s *scope) addGrant(g *grant) {
	st := *s.state.Load()
	if st.wide() {
		st.add(s, g)
	} else {
		i, _ := slices.BinarySearchFunc(st.few, g, compareGrants)
		st.few = slices.Insert(slices.Clip(st.few), i, g)
		if len(st.few) > widen {
			st = widened(s, st.few)
		}
	}
	s.state.Store(&st)
}

// removeGrant removes a grant.
func (s *scope) removeGrant(g *grant) {
	st := *s.state.Load()
	if st.wide() {
		st.remove(s, g)
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
		st.add(s, g)
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
