package objects

import rbacv1 "k8s.io/api/rbac/v1"

// SetRoleBindingDefaults fills in the API groups of the role and of users and groups. It is idempotent.
func SetRoleBindingDefaults(b *rbacv1.RoleBinding) { setBindingDefaults(&b.RoleRef, b.Subjects) }

// SetClusterRoleBindingDefaults fills in the API groups of the role and of users and groups. It is idempotent.
func SetClusterRoleBindingDefaults(b *rbacv1.ClusterRoleBinding) {
	setBindingDefaults(&b.RoleRef, b.Subjects)
}

// setBindingDefaults fills in the API groups that a binding's author left out: the role's, and those of users and
// groups. A service account is of the core group, whose name is empty.
func setBindingDefaults(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	if ref.APIGroup == "" {
		ref.APIGroup = rbacv1.GroupName
	}
	for i := range subjects {
		s := &subjects[i]
		if s.APIGroup == "" && (s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind) {
			s.APIGroup = rbacv1.GroupName
		}
	}
}
