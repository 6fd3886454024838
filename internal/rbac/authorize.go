package rbac

import (
	"slices"
	"strings"
)

// Authorize decides a request. ClusterRoleBindings are asked first, then the
// RoleBindings of the request's namespace; each time for the user, then for
// the groups as listed. Where several grants of one identity allow, the role
// first in order (ClusterRoles before Roles, then by name) is reported, with
// the first by name of the bindings that grant it.
//
// It allocates nothing, unless it denies while roles bound to the user are
// missing.
func (x *Index) Authorize(req Request) Decision {
	q := newQuery(&req)
	d := x.decide(&req, "", &q)
	// RoleBindings never grant paths: a path is in no namespace.
	if !d.Allowed && req.ResourceRequest && req.Namespace != "" {
		d = x.decide(&req, req.Namespace, &q)
	}
	if !d.Allowed && x.dangling.Load() > 0 {
		d.denial = x.missingRoles(&req)
	}
	return d
}

func (x *Index) decide(req *Request, namespace string, q *query) Decision {
	hash := x.scopes.hashNamespace(namespace)
	for i := -1; i < len(req.Groups); i++ {
		key := identity(req, i, namespace)
		s := x.scopes.find(&key, hash)
		if s == nil {
			continue
		}
		if g := s.state.Load().find(q); g != nil {
			return Decision{Allowed: true, by: g.first.Load(), role: g.slot}
		}
	}
	return Decision{}
}

// identity numbers the user -1 and the groups from 0.
func identity(req *Request, i int, namespace string) scopeKey {
	if i < 0 {
		return scopeKey{name: req.User, namespace: namespace}
	}
	return scopeKey{group: true, name: req.Groups[i], namespace: namespace}
}

// eachState calls yield with what each of the user's identities is granted in
// the cluster and then in req.Namespace.
func (x *Index) eachState(req *Request, yield func(namespace string, st *scopeState)) {
	for _, ns := range slices.Compact([]string{"", req.Namespace}) {
		for i := -1; i < len(req.Groups); i++ {
			key := identity(req, i, ns)
			if s := x.scopes.load(&key); s != nil {
				yield(ns, s.state.Load())
			}
		}
	}
}

// missingRoles words a denial as Kubernetes does when bindings of the user
// refer to roles that do not exist.
func (x *Index) missingRoles(req *Request) string {
	var missing []string
	add := func(g *grant) bool {
		if g.slot.role.Load() == nil {
			missing = append(missing, g.slot.notFound())
		}
		return true
	}
	x.eachState(req, func(ns string, st *scopeState) {
		if ns != "" && !req.ResourceRequest {
			return
		}
		for _, g := range st.few {
			add(g)
		}
		st.missing.each(add)
	})
	slices.Sort(missing)
	switch missing = slices.Compact(missing); len(missing) {
	case 0:
		return ""
	case 1:
		return "RBAC: " + missing[0]
	default:
		return "RBAC: [" + strings.Join(missing, ", ") + "]"
	}
}

func (s *slot) notFound() string {
	return strings.ToLower(s.ref.Kind.String()) + `.rbac.authorization.k8s.io "` + s.ref.Name + `" not found`
}
