package bootstrap

import rbacv1 "k8s.io/api/rbac/v1"

const (
	masters         = "system:masters"
	authenticated   = "system:authenticated"
	unauthenticated = "system:unauthenticated"
	accounts        = "system:serviceaccounts"
)

// ClusterRoleBindings returns the default ClusterRoleBindings, each named after
// the ClusterRole it binds. They are Kubernetes' own but for two: system:node
// has none, and the issuer's discovery document may be read by everybody
// with or without credentials, as relying parties that verify tokens have none.
func ClusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	return []*rbacv1.ClusterRoleBinding{
		bindGroups("cluster-admin", masters),
		bindGroups("system:basic-user", authenticated),
		bindGroups("system:discovery", authenticated),
		bindGroups("system:monitoring", "system:monitoring"),
		bindGroups("system:public-info-viewer", authenticated, unauthenticated),
		bindGroups("system:service-account-issuer-discovery", accounts, authenticated, unauthenticated),
	}
}

func bindGroups(role string, groups ...string) *rbacv1.ClusterRoleBinding {
	b := &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta(role),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
	}
	for _, g := range groups {
		b.Subjects = append(b.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: g})
	}
	return b
}
