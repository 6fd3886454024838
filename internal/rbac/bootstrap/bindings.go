package bootstrap

import (
	"cmp"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	masters         = "system:masters"
	authenticated   = "system:authenticated"
	unauthenticated = "system:unauthenticated"
	accounts        = "system:serviceaccounts"
	bootstrappers   = "system:bootstrappers"
	nodes           = "system:nodes"
	nodeClient      = "kube-apiserver-kubelet-client"
)

// ClusterRoleBindings returns the default ClusterRoleBindings, sorted by name, each named after the ClusterRole it
// binds.
//
// They differ from Kubernetes' in these points: system:node is not bound. The discovery document of the issuer can be
// read without credentials, since relying parties that verify tokens have none. A user with a bootstrap token may
// request a node's certificate and has it approved, as has a node that renews its certificate or requests one to serve
// with. The server may use the agents of nodes, as the user that its certificate names. Kubernetes leaves the last two
// to the installer: kubeadm has such bindings under names of its own, except for serving certificates.
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

// RoleBindings returns the default RoleBindings, each named after the Role it binds.
func RoleBindings() []*rbacv1.RoleBinding {
	nodesCA := bindIn(metav1.NamespacePublic, NodesCAConfigMap, rbacv1.GroupKind, authenticated)
	bindings := append(controllerSystemBindings(), nodesCA)
	slices.SortFunc(bindings, func(a, b *rbacv1.RoleBinding) int { return cmp.Compare(a.Name, b.Name) })
	return bindings
}

func bindIn(namespace, role, kind, subject string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metaIn(namespace, role),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: kind, Name: subject}},
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
