package objects

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateRole returns every fault of a new role.
func ValidateRole(r *rbacv1.Role) field.ErrorList {
	errs := validateMeta(&r.ObjectMeta, namespaced)
	return append(errs, validateRules(r.Rules, namespaced)...)
}

// ValidateRoleUpdate returns every fault of updated and of its change from old.
func ValidateRoleUpdate(updated, old *rbacv1.Role) field.ErrorList {
	return append(ValidateRole(updated), validateMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
}
