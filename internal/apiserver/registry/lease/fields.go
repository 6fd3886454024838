package lease

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Fields returns what a field selector may ask of l.
func Fields(l *coordinationv1.Lease) fields.Set {
	return fields.Set{"metadata.name": l.Name, "metadata.namespace": l.Namespace}
}
