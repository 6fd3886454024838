package lease

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/registry/age"
)

// Columns are those of kubectl get leases.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the lease."},
	{Name: "Holder", Type: "string", Description: "Who holds the lease, if anyone does."},
	{Name: "Age", Type: "string", Description: "Time since the lease was created."},
}

// Row returns a cell for each of Columns, the age as of now.
func Row(l *coordinationv1.Lease, now time.Time) []any {
	return []any{l.Name, ptr.Deref(l.Spec.HolderIdentity, ""), age.Since(l.CreationTimestamp.Time, now)}
}
