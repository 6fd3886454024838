package role

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/rbac/objects"
)

// NewStorage returns the store of roles.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (*registry.Store, error) {
	return registry.NewStore(registry.Kind[*rbacv1.Role]{
		Resource: rbacv1.Resource("roles"), Singular: "role",
		New:     func() *rbacv1.Role { return &rbacv1.Role{} },
		NewList: func() runtime.Object { return &rbacv1.RoleList{} },
		Strategy: registry.Strategy[*rbacv1.Role]{
			ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, Namespaced: true, CreateOnUpdate: true,
			Check: objects.ValidateRole, CheckUpdate: objects.ValidateRoleUpdate,
		},
		Columns: Columns, Row: Row, Fields: Fields,
	}, getter)
}
