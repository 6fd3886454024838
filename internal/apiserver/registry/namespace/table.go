package namespace

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry/age"
)

// Columns are those of kubectl get namespaces.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the namespace."},
	{Name: "Status", Type: "string", Description: "Whether the namespace is in use or coming to its end."},
	{Name: "Age", Type: "string", Description: "Time since the namespace was created."},
}

// Row returns a cell for each of Columns, the age as of now.
func Row(ns *corev1.Namespace, now time.Time) []any {
	return []any{ns.Name, string(ns.Status.Phase), age.Since(ns.CreationTimestamp.Time, now)}
}
