package rbac

import (
	"slices"
	"strconv"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Request is a request that an [Index] decides. Groups are all groups of the user, including implicit ones such as
// system:authenticated.
type Request struct {
	User   string
	Groups []string
	Verb   string

	// ResourceRequest is set for a request for a resource. Otherwise the request is for Path.
	ResourceRequest bool
	APIGroup        string
	Resource        string
	Subresource     string
	// Name is empty if the request names no object: create, list, watch and deletecollection.
	Name string
	// Namespace is empty for cluster-scoped requests and for requests across all namespaces.
	Namespace string

	Path string
}

// query is a Request in the form that rules are tested against.
type query struct {
	verb    string
	verbBit uint32
	group   string
	target  target
	star    string // subresource that "*/sub" may match; empty for none
	name    string
	// everyName requires a rule without resourceNames. Covers sets it, because a rule for some names does not cover a rule for
	// all.
	everyName bool
	url       bool
	path      string
}

func newQuery(r *Request) query {
	q := query{verb: r.Verb, verbBit: verbBit(r.Verb)}
	if !r.ResourceRequest {
		q.url, q.path = true, r.Path
		return q
	}
	q.group, q.name, q.star = r.APIGroup, r.Name, r.Subresource
	q.target = requestTarget(r.Resource, r.Subresource)
	return q
}

// target is a resource as rules write it, "pods" or "pods/log", split at the first slash, so that a request is looked up
// without concatenation. If nothing follows the slash, sub is empty and resource keeps the slash, so that different texts
// are different targets.
type target struct{ resource, sub string }

var anyTarget = target{resource: rbacv1.ResourceAll}

func parseTarget(s string) target {
	resource, sub, _ := strings.Cut(s, "/")
	if sub == "" {
		return target{resource: s}
	}
	return target{resource, sub}
}

// requestTarget returns the target of a request. An access review may have "pods/log" in the field resource. Kubernetes
// compares the joined text, so both forms are the same target.
func requestTarget(resource, sub string) target {
	switch {
	case !strings.Contains(resource, "/"):
		return target{resource, sub}
	case sub == "":
		return parseTarget(resource)
	default:
		return parseTarget(resource + "/" + sub)
	}
}

// Authorize decides a request. It considers ClusterRoleBindings first, then the RoleBindings of the request's namespace,
// each for the user and then for the groups in their order. If several grants of one identity allow the request, the
// decision names the first role (ClusterRoles before Roles, then by name) and the first binding by name that grants it.
//
// It allocates nothing, unless it denies while roles that are bound to the user are missing.
func (x *Index) Authorize(req Request) Decision {
	q := newQuery(&req)
	d := x.decide(&req, "", &q)
	// RoleBindings never grant paths, because a path is in no namespace.
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

// identity returns the scope key of the user for -1, and of a group for its index.
func identity(req *Request, i int, namespace string) scopeKey {
	if i < 0 {
		return scopeKey{name: req.User, namespace: namespace}
	}
	return scopeKey{group: true, name: req.Groups[i], namespace: namespace}
}

// eachState calls yield with the scopes of each of the user's identities, first cluster-wide and then in req.Namespace.
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

// missingRoles returns the reason for a denial if bindings of the user refer to roles that do not exist, in the words of
// Kubernetes.
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

// Kind is one of the four policy kinds.
type Kind uint8

// ClusterRole sorts before Role: if several roles allow a request, the decision names the first.
const (
	ClusterRole Kind = iota
	Role
	ClusterRoleBinding
	RoleBinding
)

// String returns the kind as in manifests.
func (k Kind) String() string {
	return [...]string{"ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding"}[k&3]
}

// Ref names a policy object. Namespace is empty for the cluster kinds.
type Ref struct {
	Kind            Kind
	Namespace, Name string
}

// Decision is the answer to a Request. The zero Decision denies.
type Decision struct {
	Allowed bool

	by     *entry
	role   *slot
	denial string
}

// Reason returns, in the words of Kubernetes, which binding allowed the request or, for a denial, which roles are bound to
// the user but do not exist. It is empty for other denials. The text is built once for each binding and subject.
func (d Decision) Reason() string {
	if d.by == nil {
		return d.denial
	}
	return d.by.describe(d.role)
}

// Binding returns the binding that allowed the request; ok is false for a denial.
func (d Decision) Binding() (ref Ref, ok bool) {
	if d.by == nil {
		return Ref{}, false
	}
	return d.by.binding.ref, true
}

// Role returns the role that allowed the request; ok is false for a denial.
func (d Decision) Role() (ref Ref, ok bool) {
	if d.role == nil {
		return Ref{}, false
	}
	return d.role.ref, true
}

// Subject returns the subject of the binding that allowed the request; ok is false for a denial.
func (d Decision) Subject() (s rbacv1.Subject, ok bool) {
	if d.by == nil {
		return s, false
	}
	return d.by.subject(), true
}

// describe returns the reason. If two readers build it at once, both texts are equal.
func (e *entry) describe(role *slot) string {
	if s := e.reason.Load(); s != nil {
		return *s
	}
	var b strings.Builder
	b.WriteString("RBAC: allowed by ")
	b.WriteString(e.binding.ref.Kind.String())
	writeQuoted(&b, e.binding.ref.Name, e.binding.ref.Namespace)
	b.WriteString(" of ")
	b.WriteString(role.ref.Kind.String())
	writeQuoted(&b, role.ref.Name, "")
	b.WriteString(" to ")
	e.writeSubject(&b)
	s := b.String()
	e.reason.Store(&s)
	return s
}

func (e *entry) writeSubject(b *strings.Builder) {
	s := e.subject()
	b.WriteString(s.Kind)
	if s.Kind != rbacv1.ServiceAccountKind {
		writeQuoted(b, s.Name, "")
		return
	}
	writeQuoted(b, s.Name, accountNamespace(s, e.binding.ref.Namespace))
}

// writeQuoted writes ` "name"` or ` "name/namespace"`. Kubernetes puts the name first in these texts.
func writeQuoted(b *strings.Builder, name, namespace string) {
	if namespace != "" {
		name += "/" + namespace
	}
	b.WriteByte(' ')
	b.WriteString(strconv.Quote(name))
}
