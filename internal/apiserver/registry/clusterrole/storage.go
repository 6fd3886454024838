package clusterrole

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/rbac/objects"
)

// NewStorage returns the store of cluster roles.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (*registry.Store, error) {
	return registry.NewStore(registry.Kind[*rbacv1.ClusterRole]{
		Resource: rbacv1.Resource("clusterroles"), Singular: "clusterrole",
		New:     func() *rbacv1.ClusterRole { return &rbacv1.ClusterRole{} },
		NewList: func() runtime.Object { return &rbacv1.ClusterRoleList{} },
		Strategy: registry.Strategy[*rbacv1.ClusterRole]{
			ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, Namespaced: false, CreateOnUpdate: true,
			Check: objects.ValidateClusterRole, CheckUpdate: objects.ValidateClusterRoleUpdate, WarnCreate: warnings,
		},
		Columns: Columns, Row: Row, Fields: Fields,
	}, getter)
}

// warnings tells of rules that will not last. An update may carry those that aggregation has filled in.
func warnings(_ context.Context, r *rbacv1.ClusterRole) []string {
	if r.AggregationRule == nil || len(r.Rules) == 0 {
		return nil
	}
	return []string{"rules: replaced by the rules of the roles that aggregationRule selects"}
}
