package bootstrap

import rbacv1 "k8s.io/api/rbac/v1"

const (
	masters         = "system:masters"
	authenticated   = "system:authenticated"
	unauthenticated = "system:unauthenticated"
	accounts        = "system:serviceaccounts"
	bootstrappers   = "system:bootstrappers"
	nodes           = "system:nodes"
)

// ClusterRoleBindings returns the default ClusterRoleBindings, each named after
// the ClusterRole it binds. They are Kubernetes' own but for three: system:node
// has none; the issuer's discovery document may be read by everybody
// with or without credentials, as relying parties that verify tokens have none;
// and who holds a bootstrap token may ask for a certificate as a node and has it
// approved, as has a node that renews its own. Kubernetes leaves those to the
// installer: kubeadm has the same three bindings under names of its own.
func ClusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	return []*rbacv1.ClusterRoleBinding{
		bindGroups("cluster-admin", masters),
		bindGroups("system:basic-user", authenticated),
		bindGroups(nodeClientRole, bootstrappers),
		bindGroups(selfNodeClientRole, nodes),
		bindGroups("system:discovery", authenticated),
		bindGroups("system:monitoring", "system:monitoring"),
		bindGroups("system:node-bootstrapper", bootstrappers),
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
