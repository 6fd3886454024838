package objects

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateClusterRoleBinding returns every fault of a new cluster role binding. The role it names need not exist.
func ValidateClusterRoleBinding(b *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := validateMeta(&b.ObjectMeta, cluster)
	errs = append(errs, validateRoleRef(b.RoleRef, "ClusterRole")...)
	return append(errs, validateSubjects(b.Subjects, cluster)...)
}

// ValidateClusterRoleBindingUpdate returns every fault of updated and of its change from old.
func ValidateClusterRoleBindingUpdate(updated, old *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := append(ValidateClusterRoleBinding(updated), validateMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
	return append(errs, ValidateRoleRefUpdate(updated.RoleRef, old.RoleRef)...)
}
