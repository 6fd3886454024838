package bootstrap

import rbacv1 "k8s.io/api/rbac/v1"

const (
	masters         = "system:masters"
	authenticated   = "system:authenticated"
	unauthenticated = "system:unauthenticated"
	accounts        = "system:serviceaccounts"
	bootstrappers   = "system:bootstrappers"
	nodes           = "system:nodes"
	nodeClient      = "kube-apiserver-kubelet-client"
)

// ClusterRoleBindings returns the default ClusterRoleBindings, each named after
// the ClusterRole it binds. They are Kubernetes' own but for four: system:node
// has none; the issuer's discovery document may be read by everybody
// with or without credentials, as relying parties that verify tokens have none;
// and who holds a bootstrap token may ask for a certificate as a node and has it
// approved, as has a node that renews its own, or wants one to serve with; and
// the authority may use the agents of nodes, as the user its certificate names.
// Kubernetes leaves those to the installer: kubeadm has such bindings, but for
// that of serving certificates, under names of its own.
func ClusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	return []*rbacv1.ClusterRoleBinding{
		bindGroups("cluster-admin", masters),
		bindGroups("system:basic-user", authenticated),
		bindGroups(nodeClientRole, bootstrappers),
		bindGroups(selfNodeClientRole, nodes),
		bindGroups(selfNodeServerRole, nodes),
		bindGroups("system:discovery", authenticated),
		bindUsers(kubeletAdminRole, nodeClient),
		bindGroups("system:monitoring", "system:monitoring"),
		bindGroups("system:node-bootstrapper", bootstrappers),
		bindGroups("system:public-info-viewer", authenticated, unauthenticated),
		bindGroups("system:service-account-issuer-discovery", accounts, authenticated, unauthenticated),
	}
}

func bindGroups(role string, groups ...string) *rbacv1.ClusterRoleBinding {
	return bind(role, rbacv1.GroupKind, groups)
}

func bindUsers(role string, users ...string) *rbacv1.ClusterRoleBinding {
	return bind(role, rbacv1.UserKind, users)
}

func bind(role, kind string, names []string) *rbacv1.ClusterRoleBinding {
	b := &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta(role),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
	}
	for _, name := range names {
		b.Subjects = append(b.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: kind, Name: name})
	}
	return b
}
