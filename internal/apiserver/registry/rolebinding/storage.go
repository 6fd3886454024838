package rolebinding

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/rbac/objects"
)

// NewStorage returns the store of role bindings.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (*registry.Store, error) {
	return registry.NewStore(registry.Kind[*rbacv1.RoleBinding]{
		Resource: rbacv1.Resource("rolebindings"), Singular: "rolebinding",
		New:     func() *rbacv1.RoleBinding { return &rbacv1.RoleBinding{} },
		NewList: func() runtime.Object { return &rbacv1.RoleBindingList{} },
		Strategy: registry.Strategy[*rbacv1.RoleBinding]{
			ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, Namespaced: true, CreateOnUpdate: true,
			Check: objects.ValidateRoleBinding, CheckUpdate: objects.ValidateRoleBindingUpdate,
		},
		Columns: Columns, Row: Row, Fields: Fields,
	}, getter)
}
