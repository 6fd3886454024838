package api

import (
	coordinationv1 "k8s.io/api/coordination/v1"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/lease"
)

func coordination() Group {
	return Group{Name: coordinationv1.GroupName, Versions: []Version{{Name: "v1", Resources: []Resource{
		{
			Name: "leases", Singular: "lease", Namespaced: true, Mirrored: true,
			Kind: &coordinationv1.Lease{}, List: &coordinationv1.LeaseList{}, Columns: lease.Columns,
			Stored: Objects[*coordinationv1.Lease]{
				Strategy: registry.Strategy[*coordinationv1.Lease]{
					CreateOnUpdate: true, NeedsVersion: true,
					Check: lease.Validate, CheckUpdate: lease.ValidateUpdate, WarnCreate: lease.Warnings,
				},
				Row: lease.Row,
			},
		},
	}}}}
}
