package clusterrolebinding

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/apiserver/registry/rbacrules"
)

// Columns are those of kubectl get clusterrolebindings.
var Columns = rbacrules.BindingColumns("cluster role binding")

// Row returns a cell for each of Columns, the age as of now.
func Row(b *rbacv1.ClusterRoleBinding, now time.Time) []any {
	return rbacrules.BindingRow(&b.ObjectMeta, b.RoleRef, b.Subjects, now)
}
