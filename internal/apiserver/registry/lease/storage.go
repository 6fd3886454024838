package lease

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
)

// NewStorage returns the store of leases.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (*registry.Store, error) {
	return registry.NewStore(registry.Kind[*coordinationv1.Lease]{
		Resource: coordinationv1.Resource("leases"), Singular: "lease",
		New:     func() *coordinationv1.Lease { return &coordinationv1.Lease{} },
		NewList: func() runtime.Object { return &coordinationv1.LeaseList{} },
		Strategy: registry.Strategy[*coordinationv1.Lease]{
			ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, Namespaced: true,
			CreateOnUpdate: true, NeedsVersion: true,
			Check: Validate, CheckUpdate: ValidateUpdate, WarnCreate: warnings,
		},
		Columns: Columns, Row: Row, Fields: Fields,
	}, getter)
}

// warnings tells who leaves the choice of a holder to the server that it makes none.
func warnings(_ context.Context, l *coordinationv1.Lease) []string {
	if l.Spec.Strategy == nil || *l.Spec.Strategy == "" {
		return nil
	}
	return []string{"spec.strategy: this server chooses no holder (coordinated leader election is off, as it is by default in Kubernetes)"}
}
