package rbac

import (
	"hash/maphash"
	"strconv"
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
// filling them in from an aggregationRule is a controller's task (package objects).
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

// newBinding resolves what a roleRef means where the binding is. Kubernetes
// looks at its kind only; a kind that cannot be bound here leaves Name empty.
func newBinding(ref Ref, roleRef rbacv1.RoleRef, subjects []rbacv1.Subject) *binding {
	b := &binding{ref: ref, subjects: subjects}
	switch {
	case roleRef.Kind == "ClusterRole":
		b.roleRef = Ref{ClusterRole, "", roleRef.Name}
	case roleRef.Kind == "Role" && ref.Kind == RoleBinding:
		b.roleRef = Ref{Role, ref.Namespace, roleRef.Name}
	}
	return b
}

func (x *Index) setBinding(b *binding, resourceVersion string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	version, ok := x.admit(b.ref, resourceVersion)
	if !ok {
		return
	}
	b.version = version
	if old := x.bindings[b.ref]; old != nil {
		x.withdraw(old, b)
	}
	x.bindings[b.ref] = b
	x.enter(b)
}

// enter makes b known to each identity among its subjects.
func (x *Index) enter(b *binding) {
	if b.roleRef.Name == "" || b.ref.Kind == RoleBinding && b.ref.Namespace == "" {
		return
	}
	b.role = x.slot(b.roleRef)
	for i := range b.subjects {
		if key, ok := b.scopeKey(i); ok {
			x.grant(key, b, i)
		}
	}
	x.recount(b.role, func() {}) // no subject may have counted
}

func (x *Index) grant(key scopeKey, b *binding, index int) {
	s := x.scopes.load(&key)
	if s != nil {
		if g := s.grantOf(b.role); g != nil {
			g.put(&entry{binding: b, index: index})
			return
		}
	}
	g := &grant{slot: b.role}
	g.put(&entry{binding: b, index: index})
	x.recount(b.role, func() { b.role.refs++ })
	if s != nil {
		s.attach(g)
		return
	}
	s = &scope{key: key}
	s.state.Store(&scopeState{few: []*grant{g}})
	x.scopes.insert(s)
}

// withdraw takes b out, except where next, its successor, only replaces it.
func (x *Index) withdraw(b, next *binding) {
	if b.role == nil {
		return
	}
	stays := map[scopeKey]bool{}
	if next != nil && next.roleRef == b.roleRef {
		for i := range next.subjects {
			if key, ok := next.scopeKey(i); ok {
				stays[key] = true
			}
		}
	}
	for i := range b.subjects {
		if key, ok := b.scopeKey(i); ok && !stays[key] {
			x.revoke(key, b)
		}
	}
}

func (x *Index) revoke(key scopeKey, b *binding) {
	s := x.scopes.load(&key)
	if s == nil {
		return
	}
	g := s.grantOf(b.role)
	if g == nil {
		return // a subject listed twice
	}
	g.drop(b.ref.Name)
	if len(g.entries) > 0 {
		return
	}
	s.detach(g)
	x.recount(b.role, func() { b.role.refs-- })
	if s.state.Load().empty() {
		x.scopes.remove(s)
	}
}

// scopeKey returns where the i-th subject's grant is kept; ok is false for a
// subject that can match nobody.
func (b *binding) scopeKey(i int) (key scopeKey, ok bool) {
	s := &b.subjects[i]
	key = scopeKey{name: s.Name, namespace: b.ref.Namespace}
	switch s.Kind {
	case rbacv1.UserKind:
	case rbacv1.GroupKind:
		key.group = true
	case rbacv1.ServiceAccountKind:
		ns := accountNamespace(*s, b.ref.Namespace)
		if ns == "" {
			return scopeKey{}, false
		}
		key.name = accountPrefix + ns + ":" + s.Name
	default:
		return scopeKey{}, false
	}
	return key, true
}

// accountNamespace is the subject's namespace or, in a RoleBinding, by default
// the binding's own.
func accountNamespace(s rbacv1.Subject, bindingNamespace string) string {
	if s.Namespace != "" {
		return s.Namespace
	}
	return bindingNamespace
}

// parseVersion reads a resourceVersion; 0 means that it orders nothing.
func parseVersion(s string) uint64 {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// admit tells whether a change of the object is news, and records nothing but
// that a deletion before it is past.
func (x *Index) admit(ref Ref, resourceVersion string) (version uint64, ok bool) {
	version = parseVersion(resourceVersion)
	if version != 0 {
		if held, ok := x.held(ref); ok && version <= held || version <= x.deleted[ref] {
			return version, false
		}
	}
	delete(x.deleted, ref)
	return version, true
}

// held returns the version of the object in the index.
func (x *Index) held(ref Ref) (version uint64, ok bool) {
	if ref.Kind == Role || ref.Kind == ClusterRole {
		s := x.slots[ref]
		if s == nil || s.role.Load() == nil {
			return 0, false
		}
		return s.version, true
	}
	b := x.bindings[ref]
	if b == nil {
		return 0, false
	}
	return b.version, true
}

// Forget drops the memory of deletions up to resourceVersion. It is for the
// caller that knows no older change can still arrive, because the watches
// that feed the index have all passed it.
func (x *Index) Forget(resourceVersion string) {
	v := parseVersion(resourceVersion)
	x.mu.Lock()
	defer x.mu.Unlock()
	for ref, at := range x.deleted {
		if at <= v {
			delete(x.deleted, ref)
		}
	}
}

// Retain removes the objects of a kind that keep does not name, except those
// changed after resourceVersion: what a fresh list, taken at that version,
// no longer holds. keep is called with the index locked and must not use it.
func (x *Index) Retain(kind Kind, resourceVersion string, keep func(namespace, name string) bool) {
	v := parseVersion(resourceVersion)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, ref := range x.refs(kind) {
		if !keep(ref.Namespace, ref.Name) {
			x.delete(ref, v)
		}
	}
}

func (x *Index) refs(kind Kind) []Ref {
	var refs []Ref
	for ref, s := range x.slots {
		if ref.Kind == kind && s.role.Load() != nil {
			refs = append(refs, ref)
		}
	}
	for ref := range x.bindings {
		if ref.Kind == kind {
			refs = append(refs, ref)
		}
	}
	return refs
}
