package api

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/clusterrole"
	"lanyard.dev/internal/apiserver/registry/clusterrolebinding"
	"lanyard.dev/internal/apiserver/registry/role"
	"lanyard.dev/internal/apiserver/registry/rolebinding"
	"lanyard.dev/internal/rbac/objects"
)

func rbac() Group {
	return Group{Name: rbacv1.GroupName, Versions: []Version{{Name: "v1", Resources: []Resource{
		{
			Name: "roles", Singular: "role", Namespaced: true, Mirrored: true,
			Kind: &rbacv1.Role{}, List: &rbacv1.RoleList{}, Columns: role.Columns,
			Stored: Objects[*rbacv1.Role]{
				Strategy: registry.Strategy[*rbacv1.Role]{
					CreateOnUpdate: true, Check: objects.ValidateRole, CheckUpdate: objects.ValidateRoleUpdate,
				},
				Row: role.Row, Fields: role.Fields,
			},
		},
		{
			Name: "rolebindings", Singular: "rolebinding", Namespaced: true, Mirrored: true,
			Kind: &rbacv1.RoleBinding{}, List: &rbacv1.RoleBindingList{}, Columns: rolebinding.Columns,
			Stored: Objects[*rbacv1.RoleBinding]{
				Strategy: registry.Strategy[*rbacv1.RoleBinding]{
					CreateOnUpdate: true, Check: objects.ValidateRoleBinding, CheckUpdate: objects.ValidateRoleBindingUpdate,
				},
				Default: objects.SetRoleBindingDefaults, Row: rolebinding.Row, Fields: rolebinding.Fields,
			},
		},
		{
			Name: "clusterroles", Singular: "clusterrole", Mirrored: true,
			Kind: &rbacv1.ClusterRole{}, List: &rbacv1.ClusterRoleList{}, Columns: clusterrole.Columns,
			Stored: Objects[*rbacv1.ClusterRole]{
				Strategy: registry.Strategy[*rbacv1.ClusterRole]{
					CreateOnUpdate: true, Check: objects.ValidateClusterRole, CheckUpdate: objects.ValidateClusterRoleUpdate,
					WarnCreate: clusterrole.Warnings,
				},
				Row: clusterrole.Row, Fields: clusterrole.Fields,
			},
		},
		{
			Name: "clusterrolebindings", Singular: "clusterrolebinding", Mirrored: true,
			Kind: &rbacv1.ClusterRoleBinding{}, List: &rbacv1.ClusterRoleBindingList{}, Columns: clusterrolebinding.Columns,
			Stored: Objects[*rbacv1.ClusterRoleBinding]{
				Strategy: registry.Strategy[*rbacv1.ClusterRoleBinding]{
					CreateOnUpdate: true, Check: objects.ValidateClusterRoleBinding, CheckUpdate: objects.ValidateClusterRoleBindingUpdate,
				},
				Default: objects.SetClusterRoleBindingDefaults, Row: clusterrolebinding.Row, Fields: clusterrolebinding.Fields,
			},
		},
	}}}}
}
