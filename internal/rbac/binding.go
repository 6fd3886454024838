package rbac

import rbacv1 "k8s.io/api/rbac/v1"

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
