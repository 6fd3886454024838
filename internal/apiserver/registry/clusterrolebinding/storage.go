package clusterrolebinding

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/rbac/objects"
)

// NewStorage returns the store of cluster role bindings.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (*registry.Store, error) {
	return registry.NewStore(registry.Kind[*rbacv1.ClusterRoleBinding]{
		Resource: rbacv1.Resource("clusterrolebindings"), Singular: "clusterrolebinding",
		New:     func() *rbacv1.ClusterRoleBinding { return &rbacv1.ClusterRoleBinding{} },
		NewList: func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} },
		Strategy: registry.Strategy[*rbacv1.ClusterRoleBinding]{
			ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, Namespaced: false, CreateOnUpdate: true,
			Check: objects.ValidateClusterRoleBinding, CheckUpdate: objects.ValidateClusterRoleBindingUpdate,
		},
		Columns: Columns, Row: Row, Fields: Fields,
	}, getter)
}
