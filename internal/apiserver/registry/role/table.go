package role

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/apiserver/registry/rbacrules"
)

// Columns are those of kubectl get roles.
var Columns = rbacrules.RoleColumns("role")

// Row returns a cell for each of Columns.
func Row(r *rbacv1.Role, _ time.Time) []any { return rbacrules.RoleRow(&r.ObjectMeta) }
