package rbac

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Index holds a policy. Any number of goroutines may ask while others write;
// writes take effect one after the other, each before its method returns.
//
// Each Set and Delete takes the resourceVersion of the change it reports, as
// etcd counts it: one counter for all objects. A change older than one already
// seen of the same object is ignored, so that the index may be fed both by the
// write itself and by a watch that follows. An empty resourceVersion is
// always applied.
type Index struct {
	scopes scopeTable
	// dangling counts slots with grants but no role. While it is zero, a
	// denial has nothing to explain.
	dangling atomic.Int64

	mu       sync.Mutex
	slots    map[Ref]*slot
	bindings map[Ref]*binding
	deleted  map[Ref]uint64 // version of the deletion
}

// binding is a RoleBinding or ClusterRoleBinding as last set.
type binding struct {
	ref      Ref
	version  uint64
	role     *slot // nil when no role of that kind can be bound here
	roleRef  Ref
	subjects []rbacv1.Subject
}

// NewIndex returns an empty index, which denies everything.
func NewIndex() *Index {
	return &Index{
		scopes:   scopeTable{seed: maphash.MakeSeed()},
		slots:    map[Ref]*slot{},
		bindings: map[Ref]*binding{},
		deleted:  map[Ref]uint64{},
	}
}

// SetRole adds or replaces a Role.
func (x *Index) SetRole(r *rbacv1.Role) {
	x.setRole(Ref{Role, r.Namespace, r.Name}, r.ResourceVersion, r.Rules)
}

// SetClusterRole adds or replaces a ClusterRole. Its rules are what counts;
// filling them in from an aggregationRule is a controller's task (package aggregate).
func (x *Index) SetClusterRole(r *rbacv1.ClusterRole) {
	x.setRole(Ref{ClusterRole, "", r.Name}, r.ResourceVersion, r.Rules)
}

// SetRoleBinding adds or replaces a RoleBinding.
func (x *Index) SetRoleBinding(b *rbacv1.RoleBinding) {
	x.setBinding(newBinding(Ref{RoleBinding, b.Namespace, b.Name}, b.RoleRef, b.Subjects), b.ResourceVersion)
}

// SetClusterRoleBinding adds or replaces a ClusterRoleBinding.
func (x *Index) SetClusterRoleBinding(b *rbacv1.ClusterRoleBinding) {
	x.setBinding(newBinding(Ref{ClusterRoleBinding, "", b.Name}, b.RoleRef, b.Subjects), b.ResourceVersion)
}

// Delete removes an object. Deleting what is not there is allowed.
func (x *Index) Delete(ref Ref, resourceVersion string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.delete(ref, parseVersion(resourceVersion))
}

func (x *Index) setRole(ref Ref, resourceVersion string, rules []rbacv1.PolicyRule) {
	compiled := compileRole(rules) // before the lock: it may be long
	x.mu.Lock()
	defer x.mu.Unlock()
	version, ok := x.admit(ref, resourceVersion)
	if !ok {
		return
	}
	s := x.slot(ref)
	s.version = version
	x.swap(s, compiled)
}

// swap puts a role, or nil, into its slot. Only scopes that keep a tree of
// rules need telling.
func (x *Index) swap(s *slot, r *role) {
	before := s.role.Load()
	x.recount(s, func() { s.role.Store(r) })
	for sc, g := range s.wide {
		sc.refresh(g, before, r)
	}
}

// recount does change, which alters the slot, and keeps the number of
// dangling slots and the slot's own existence right.
func (x *Index) recount(s *slot, change func()) {
	before := s.dangling()
	change()
	switch after := s.dangling(); {
	case before && !after:
		x.dangling.Add(-1)
	case !before && after:
		x.dangling.Add(1)
	}
	if s.refs == 0 && s.role.Load() == nil {
		delete(x.slots, s.ref)
	}
}

func (x *Index) slot(ref Ref) *slot {
	s := x.slots[ref]
	if s == nil {
		s = &slot{ref: ref}
		x.slots[ref] = s
	}
	return s
}

func (x *Index) delete(ref Ref, version uint64) {
	held, ok := x.held(ref)
	if ok && version != 0 && held > version {
		return
	}
	if version > x.deleted[ref] {
		x.deleted[ref] = version
	}
	if !ok {
		return
	}
	if ref.Kind == Role || ref.Kind == ClusterRole {
		s := x.slots[ref]
		s.version = 0
		x.swap(s, nil)
		return
	}
	x.withdraw(x.bindings[ref], nil)
	delete(x.bindings, ref)
}
