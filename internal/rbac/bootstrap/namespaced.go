package bootstrap

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NodesCAConfigMap is the ConfigMap, in kube-public, that holds the CA of what nodes serve with.
const NodesCAConfigMap = "kubelet-serving-ca"

// Roles returns the default Roles. Everybody who has signed in may read the CA of the nodes, which scrapers of their metrics need.
// Kubernetes publishes no such CA.
func Roles() []*rbacv1.Role {
	read := rule([]string{"get", "list", "watch"}, core, "configmaps")
	read.ResourceNames = []string{NodesCAConfigMap}
	return []*rbacv1.Role{{ObjectMeta: metaIn(metav1.NamespacePublic, NodesCAConfigMap), Rules: []rbacv1.PolicyRule{read}}}
}

// RoleBindings returns the default RoleBindings.
func RoleBindings() []*rbacv1.RoleBinding {
	return []*rbacv1.RoleBinding{{
		ObjectMeta: metaIn(metav1.NamespacePublic, NodesCAConfigMap),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: NodesCAConfigMap},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: authenticated}},
	}}
}

func metaIn(namespace, name string) metav1.ObjectMeta {
	m := meta(name)
	m.Namespace = namespace
	return m
}
