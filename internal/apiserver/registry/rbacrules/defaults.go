package rbacrules

import rbacv1 "k8s.io/api/rbac/v1"

// SetBindingDefaults fills in the API groups that a binding's author left out: the role's, and those of users and
// groups. A service account is of the core group, whose name is empty.
func SetBindingDefaults(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
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
