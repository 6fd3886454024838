package access

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/objects"
)

// add files one object, if it is policy and a server would take it.
func (m *Manifests) add(file string, o found) {
	gv, err := schema.ParseGroupVersion(o.kind.APIVersion)
	switch {
	case err == nil && gv == corev1.SchemeGroupVersion && o.kind.Kind == "ServiceAccount":
		m.addAccount(file, o.raw)
	case err != nil || gv.Group != rbacv1.GroupName:
		m.ignored[o.kind.Kind]++
	case gv != rbacv1.SchemeGroupVersion:
		m.refuse(file, o.kind.Kind, fmt.Sprintf("no server serves %s", gv))
	default:
		m.addPolicy(file, o)
	}
}

func (m *Manifests) addPolicy(file string, o found) {
	switch o.kind.Kind {
	case "ClusterRole":
		if r, ref, ok := decode[rbacv1.ClusterRole](m, file, o.raw, rbac.ClusterRole); ok && m.accept(file, ref, objects.ValidateClusterRole(r)) {
			m.clusterRoles[r.Name] = r
		}
	case "Role":
		if r, ref, ok := decode[rbacv1.Role](m, file, o.raw, rbac.Role); ok && m.accept(file, ref, objects.ValidateRole(r)) {
			m.roles[ref] = r
		}
	case "ClusterRoleBinding":
		if b, ref, ok := decode[rbacv1.ClusterRoleBinding](m, file, o.raw, rbac.ClusterRoleBinding); ok {
			objects.SetClusterRoleBindingDefaults(b)
			faults := objects.ValidateClusterRoleBinding(b)
			if old := m.clusterRoleBindings[b.Name]; old != nil {
				faults = append(faults, objects.ValidateRoleRefUpdate(b.RoleRef, old.RoleRef)...)
			}
			if m.accept(file, ref, faults) {
				m.clusterRoleBindings[b.Name] = b
			}
		}
	case "RoleBinding":
		if b, ref, ok := decode[rbacv1.RoleBinding](m, file, o.raw, rbac.RoleBinding); ok {
			objects.SetRoleBindingDefaults(b)
			faults := objects.ValidateRoleBinding(b)
			if old := m.roleBindings[ref]; old != nil {
				faults = append(faults, objects.ValidateRoleRefUpdate(b.RoleRef, old.RoleRef)...)
			}
			if m.accept(file, ref, faults) {
				m.roleBindings[ref] = b
			}
		}
	default:
		m.refuse(file, o.kind.Kind, fmt.Sprintf("%s has no such kind", rbacv1.GroupName))
	}
}

// accept reports whether an object counts: if it has no faults. The last read of several counts.
func (m *Manifests) accept(file string, ref rbac.Ref, faults field.ErrorList) bool {
	if len(faults) > 0 {
		m.refuse(file, objectOf(ref).String(), oneLine(faults.ToAggregate()).Error())
		return false
	}
	if before, again := m.origin[ref]; again {
		m.notes = append(m.notes, fmt.Sprintf("%s is in %s and again in %s, which counts", objectOf(ref), before, file))
	}
	m.origin[ref] = file
	return true
}

// refuse notes that an object does not count.
func (m *Manifests) refuse(file, object, reason string) {
	m.refused = append(m.refused, fmt.Sprintf("%s in %s does not count, as a server refuses it: %s", object, file, reason))
}

// decode reads one object as a server does: fields that it does not know, or knows in other letters, are left out. ok is
// false for what cannot be read; a note says so.
func decode[T any, P interface {
	*T
	metav1.Object
}](m *Manifests, file string, raw []byte, kind rbac.Kind) (o P, ref rbac.Ref, ok bool) {
	o = P(new(T))
	unknown, err := kjson.UnmarshalStrict(raw, o)
	if err != nil {
		m.refuse(file, kind.String(), oneLine(err).Error())
		return nil, ref, false
	}
	m.locate(o, kind == rbac.Role || kind == rbac.RoleBinding)
	o.SetResourceVersion("") // the last one read counts, not the newest
	ref = rbac.Ref{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}
	for _, fault := range unknown {
		m.notes = append(m.notes, fmt.Sprintf("%s in %s: %s, which a server leaves out or refuses", objectOf(ref), file, oneLine(fault)))
	}
	return o, ref, true
}

// locate fills in the namespace and name that a server or kubectl would.
func (m *Manifests) locate(o metav1.Object, namespaced bool) {
	switch {
	case !namespaced:
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(m.Namespace)
		m.homeless++
	}
	if o.GetName() == "" && o.GetGenerateName() != "" {
		m.generated++
		o.SetName(fmt.Sprintf("%s(generated %d)", o.GetGenerateName(), m.generated))
	}
}

func (m *Manifests) addAccount(file string, raw []byte) {
	account := &corev1.ServiceAccount{}
	if _, err := kjson.UnmarshalStrict(raw, account); err != nil {
		m.refuse(file, "ServiceAccount", oneLine(err).Error())
		return
	}
	m.locate(account, true)
	faults := apivalidation.ValidateObjectMeta(&account.ObjectMeta, true, apivalidation.ValidateServiceAccountName, field.NewPath("metadata"))
	if len(faults) > 0 {
		m.refuse(file, Object{"ServiceAccount", account.Namespace, account.Name}.String(), oneLine(faults.ToAggregate()).Error())
		return
	}
	m.accounts[account.Namespace] = append(m.accounts[account.Namespace], account.Name)
}
