package rbac

import (
	"hash/maphash"
	"strconv"
	"sync"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/account"
)

// Index holds a policy. It is safe for concurrent use. Writes take effect one after the other, each before its method
// returns.
//
// Each Set method and Delete takes the resourceVersion of the change, a number that increases with each write to etcd. A change
// that is older than the last change of the same object is ignored, so the index may receive a change twice: from the write
// itself and from a watch. A change with an empty resourceVersion is always applied.
type Index struct {
	scopes scopeTable
	// dangling is the number of slots with grants but without a role. While it is zero, denials have no reason.
	dangling atomic.Int64

	mu       sync.Mutex
	slots    map[Ref]*slot
	bindings map[Ref]*binding
	deleted  map[Ref]uint64 // versions of deletions
}

// binding is a RoleBinding or ClusterRoleBinding as last set.
type binding struct {
	ref      Ref
	version  uint64
	role     *slot // nil if the binding cannot refer to a role of that kind
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

// SetClusterRole adds or replaces a ClusterRole. Its aggregationRule is ignored: a controller fills in the rules.
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

// Delete removes an object. The object may be missing.
func (x *Index) Delete(ref Ref, resourceVersion string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.delete(ref, parseVersion(resourceVersion))
}

func (x *Index) setRole(ref Ref, resourceVersion string, rules []rbacv1.PolicyRule) {
	compiled := compileRole(rules) // before the lock, because it may take long
	x.mu.Lock()
	defer x.mu.Unlock()
	version, ok := x.isNewer(ref, resourceVersion)
	if !ok {
		return
	}
	s := x.slot(ref)
	s.version = version
	x.replaceRole(s, compiled)
}

// replaceRole stores a role, or nil if it was deleted, in its slot, and updates the trees of rules of wide scopes.
func (x *Index) replaceRole(s *slot, r *role) {
	before := s.role.Load()
	x.updateSlot(s, func() { s.role.Store(r) })
	for sc, g := range s.wide {
		sc.refresh(g, before, r)
	}
}

// updateSlot calls change, which changes the slot. Then it updates the number of dangling slots, and removes the slot if it
// is no longer used.
func (x *Index) updateSlot(s *slot, change func()) {
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
	held, ok := x.versionOf(ref)
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
		x.replaceRole(s, nil)
		return
	}
	x.removeGrants(x.bindings[ref], nil)
	delete(x.bindings, ref)
}

// newBinding resolves the roleRef of a binding. Like Kubernetes it ignores the API group. For a kind that the binding cannot
// refer to, the name in roleRef of the result is empty.
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
	version, ok := x.isNewer(b.ref, resourceVersion)
	if !ok {
		return
	}
	b.version = version
	if old := x.bindings[b.ref]; old != nil {
		x.removeGrants(old, b)
	}
	x.bindings[b.ref] = b
	x.addGrants(b)
}

// addGrants adds the grants of b to the scopes of its subjects.
func (x *Index) addGrants(b *binding) {
	if b.roleRef.Name == "" || b.ref.Kind == RoleBinding && b.ref.Namespace == "" {
		return
	}
	b.role = x.slot(b.roleRef)
	for i := range b.subjects {
		if key, ok := b.scopeKey(i); ok {
			x.grant(key, b, i)
		}
	}
	x.updateSlot(b.role, func() {}) // removes the slot if no subject can match any user
}

func (x *Index) grant(key scopeKey, b *binding, index int) {
	s := x.scopes.load(&key)
	if s != nil {
		if g := s.grantOf(b.role); g != nil {
			g.addEntry(&entry{binding: b, index: index})
			return
		}
	}
	g := &grant{slot: b.role}
	g.addEntry(&entry{binding: b, index: index})
	x.updateSlot(b.role, func() { b.role.refs++ })
	if s != nil {
		s.addGrant(g)
		return
	}
	s = &scope{key: key}
	s.state.Store(&scopeState{few: []*grant{g}})
	x.scopes.insert(s)
}

// removeGrants removes the grants of b, except those that next, its new version or nil, grants too.
func (x *Index) removeGrants(b, next *binding) {
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
		return // the binding lists the subject twice
	}
	g.removeEntry(b.ref.Name)
	if len(g.entries) > 0 {
		return
	}
	s.removeGrant(g)
	x.updateSlot(b.role, func() { b.role.refs-- })
	if s.state.Load().empty() {
		x.scopes.remove(s)
	}
}

// scopeKey returns the scope of the i-th subject; ok is false if the subject cannot match any user.
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
		key.name = account.Name{Namespace: ns, Name: s.Name}.User()
	default:
		return scopeKey{}, false
	}
	return key, true
}

// accountNamespace returns the namespace of the subject; the default is the namespace of its RoleBinding.
func accountNamespace(s rbacv1.Subject, bindingNamespace string) string {
	if s.Namespace != "" {
		return s.Namespace
	}
	return bindingNamespace
}

// parseVersion parses a resourceVersion; 0 means that there is none.
func parseVersion(s string) uint64 {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// isNewer reports whether a change is newer than the last one of the object. If it is, isNewer forgets a deletion of the
// object.
func (x *Index) isNewer(ref Ref, resourceVersion string) (version uint64, ok bool) {
	version = parseVersion(resourceVersion)
	if version != 0 {
		if held, ok := x.versionOf(ref); ok && version <= held || version <= x.deleted[ref] {
			return version, false
		}
	}
	delete(x.deleted, ref)
	return version, true
}

// versionOf returns the version of the object in the index; ok is false if there is none.
func (x *Index) versionOf(ref Ref) (version uint64, ok bool) {
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

// Forget drops the record of deletions up to resourceVersion. Call it when no older change can arrive any more, because all
// watches that feed the index have passed that version.
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

// Retain removes the objects of a kind for which keep returns false, except those that changed after resourceVersion. It is
// for a new list of the objects, with that version. keep is called while the index is locked and must not use it.
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
