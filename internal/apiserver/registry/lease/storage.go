package lease

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// Warnings tells who leaves the choice of a holder to the server that it makes none.
func Warnings(_ context.Context, l *coordinationv1.Lease) []string {
	if l.Spec.Strategy == nil || *l.Spec.Strategy == "" {
		return nil
	}
	return []string{"spec.strategy: this server chooses no holder (coordinated leader election is off, as it is by default in Kubernetes)"}
}
