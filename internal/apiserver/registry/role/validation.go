package role

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/registry/rbacrules"
)

// Validate returns every fault of a new role.
func Validate(r *rbacv1.Role) field.ErrorList {
	errs := rbacrules.ValidateMeta(&r.ObjectMeta, rbacrules.Namespaced)
	return append(errs, rbacrules.ValidateRules(r.Rules, rbacrules.Namespaced)...)
}

// ValidateUpdate returns every fault of updated and of its change from old.
func ValidateUpdate(updated, old *rbacv1.Role) field.ErrorList {
	return append(Validate(updated), rbacrules.ValidateMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
}
