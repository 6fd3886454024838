package rbac

import (
	"strconv"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Kind is one of the four policy kinds.
type Kind uint8

// ClusterRole sorts before Role: where several roles allow a request, the
// first in order is named in the decision.
const (
	ClusterRole Kind = iota
	Role
	ClusterRoleBinding
	RoleBinding
)

// String returns the kind as manifests spell it.
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

// Reason tells in Kubernetes' own words which binding allowed the request,
// or, for a denial, which roles are bound to the user but do not exist. It is
// empty for a plain denial. The text is built once per binding and subject.
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

// Subject returns the subject, as the binding writes it, through which the
// request was allowed; ok is false for a denial.
func (d Decision) Subject() (s rbacv1.Subject, ok bool) {
	if d.by == nil {
		return s, false
	}
	return d.by.subject(), true
}

// describe composes the reason. Two readers may do so at once; either text
// is right.
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

// writeQuoted writes ` "name"`, or ` "name/namespace"`: Kubernetes puts the
// name first in these texts.
func writeQuoted(b *strings.Builder, name, namespace string) {
	if namespace != "" {
		name += "/" + namespace
	}
	b.WriteByte(' ')
	b.WriteString(strconv.Quote(name))
}
