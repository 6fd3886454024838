package objects

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateRoleBinding returns every fault of a new role binding. The role it names need not exist.
func ValidateRoleBinding(b *rbacv1.RoleBinding) field.ErrorList {
	errs := validateMeta(&b.ObjectMeta, namespaced)
	errs = append(errs, validateRoleRef(b.RoleRef, "Role", "ClusterRole")...)
	return append(errs, validateSubjects(b.Subjects, namespaced)...)
}

// ValidateRoleBindingUpdate returns every fault of updated and of its change from old.
func ValidateRoleBindingUpdate(updated, old *rbacv1.RoleBinding) field.ErrorList {
	errs := append(ValidateRoleBinding(updated), validateMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
	return append(errs, ValidateRoleRefUpdate(updated.RoleRef, old.RoleRef)...)
}
