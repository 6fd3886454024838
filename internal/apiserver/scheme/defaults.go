package scheme

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/node"
	"lanyard.dev/internal/apiserver/registry/pod"
	"lanyard.dev/internal/apiserver/registry/secret"
	"lanyard.dev/internal/rbac/objects"
)

func addDefaults(s *runtime.Scheme) {
	addDefault(s, &corev1.Namespace{}, namespace.SetDefaults)
	addDefault(s, &corev1.Node{}, node.SetDefaults)
	addDefault(s, &corev1.Pod{}, pod.SetDefaults)
	addDefault(s, &corev1.Secret{}, secret.SetDefaults)
	addDefault(s, &rbacv1.ClusterRoleBinding{}, objects.SetClusterRoleBindingDefaults)
	addDefault(s, &rbacv1.RoleBinding{}, objects.SetRoleBindingDefaults)
}

// addDefault registers the defaults of one kind.
func addDefault[T runtime.Object](s *runtime.Scheme, kind T, set func(T)) {
	s.AddTypeDefaultingFunc(kind, func(obj any) { set(obj.(T)) })
}
