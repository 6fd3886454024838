package clusterrole

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/apiserver/registry/rbacrules"
)

// Columns are those of kubectl get clusterroles.
var Columns = rbacrules.RoleColumns("cluster role")

// Row returns a cell for each of Columns.
func Row(r *rbacv1.ClusterRole, _ time.Time) []any { return rbacrules.RoleRow(&r.ObjectMeta) }
