package rolebinding

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/apiserver/registry/rbacrules"
)

// SetDefaults fills in the API groups of the role and of users and groups. It is idempotent.
func SetDefaults(b *rbacv1.RoleBinding) { rbacrules.SetBindingDefaults(&b.RoleRef, b.Subjects) }
