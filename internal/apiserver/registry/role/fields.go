package role

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Fields returns what a field selector may ask of r.
func Fields(r *rbacv1.Role) fields.Set {
	return fields.Set{"metadata.name": r.Name, "metadata.namespace": r.Namespace}
}
