package rolebinding

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Fields returns what a field selector may ask of b.
func Fields(b *rbacv1.RoleBinding) fields.Set {
	return fields.Set{"metadata.name": b.Name, "metadata.namespace": b.Namespace}
}
