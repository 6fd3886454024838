package api

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/apiserver/registry"
	rbacregistry "lanyard.dev/internal/apiserver/registry/rbac"
	"lanyard.dev/internal/rbac/objects"
)

func rbac() Group {
	return Group{Name: rbacv1.GroupName, Versions: []Version{{Name: "v1", Resources: []Resource{
		{
			Name: "roles", Singular: "role", Namespaced: true, Mirrored: true,
			Kind: &rbacv1.Role{}, List: &rbacv1.RoleList{}, Columns: rbacregistry.RoleColumns,
			Stored: Objects[*rbacv1.Role]{
				Strategy: registry.Strategy[*rbacv1.Role]{
					CreateOnUpdate: true, Check: objects.ValidateRole, CheckUpdate: objects.ValidateRoleUpdate,
				},
				Row: rbacregistry.RoleRow,
			},
		},
		{
			Name: "rolebindings", Singular: "rolebinding", Namespaced: true, Mirrored: true,
			Kind: &rbacv1.RoleBinding{}, List: &rbacv1.RoleBindingList{}, Columns: rbacregistry.RoleBindingColumns,
			Stored: Objects[*rbacv1.RoleBinding]{
				Strategy: registry.Strategy[*rbacv1.RoleBinding]{
					CreateOnUpdate: true, Check: objects.ValidateRoleBinding, CheckUpdate: objects.ValidateRoleBindingUpdate,
				},
				Default: objects.SetRoleBindingDefaults, Row: rbacregistry.RoleBindingRow,
			},
		},
		{
			Name: "clusterroles", Singular: "clusterrole", Mirrored: true,
			Kind: &rbacv1.ClusterRole{}, List: &rbacv1.ClusterRoleList{}, Columns: rbacregistry.ClusterRoleColumns,
			Stored: Objects[*rbacv1.ClusterRole]{
				Strategy: registry.Strategy[*rbacv1.ClusterRole]{
					CreateOnUpdate: true, Check: objects.ValidateClusterRole, CheckUpdate: objects.ValidateClusterRoleUpdate,
					WarnCreate: rbacregistry.ClusterRoleWarnings,
				},
				Row: rbacregistry.ClusterRoleRow,
			},
		},
		{
			Name: "clusterrolebindings", Singular: "clusterrolebinding", Mirrored: true,
			Kind: &rbacv1.ClusterRoleBinding{}, List: &rbacv1.ClusterRoleBindingList{}, Columns: rbacregistry.ClusterRoleBindingColumns,
			Stored: Objects[*rbacv1.ClusterRoleBinding]{
				Strategy: registry.Strategy[*rbacv1.ClusterRoleBinding]{
					CreateOnUpdate: true, Check: objects.ValidateClusterRoleBinding, CheckUpdate: objects.ValidateClusterRoleBindingUpdate,
				},
				Default: objects.SetClusterRoleBindingDefaults, Row: rbacregistry.ClusterRoleBindingRow,
			},
		},
	}}}}
}
