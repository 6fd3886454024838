package configmap

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry/age"
)

// Columns are those of kubectl get configmaps.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the config map."},
	{Name: "Data", Type: "string", Description: "Number of keys, textual and binary together."},
	{Name: "Age", Type: "string", Description: "Time since the config map was created."},
}

// Row returns a cell for each of Columns, the age as of now.
func Row(cm *corev1.ConfigMap, now time.Time) []any {
	return []any{cm.Name, int64(len(cm.Data) + len(cm.BinaryData)), age.Since(cm.CreationTimestamp.Time, now)}
}
