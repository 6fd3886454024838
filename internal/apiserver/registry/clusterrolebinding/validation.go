package clusterrolebinding

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/registry/rbacrules"
)

// Validate returns every fault of a new cluster role binding. The role it names need not exist.
func Validate(b *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := rbacrules.ValidateMeta(&b.ObjectMeta, rbacrules.Cluster)
	errs = append(errs, rbacrules.ValidateRoleRef(b.RoleRef, "ClusterRole")...)
	return append(errs, rbacrules.ValidateSubjects(b.Subjects, rbacrules.Cluster)...)
}

// ValidateUpdate returns every fault of updated and of its change from old.
func ValidateUpdate(updated, old *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := append(Validate(updated), rbacrules.ValidateMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
	return append(errs, rbacrules.ValidateRoleRefUpdate(updated.RoleRef, old.RoleRef)...)
}
