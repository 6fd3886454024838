package secret

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry/age"
)

// Columns are those of kubectl get secrets.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the secret."},
	{Name: "Type", Type: "string", Description: "What the secret is for, which says what keys it has."},
	{Name: "Data", Type: "string", Description: "Number of keys; their values are not shown."},
	{Name: "Age", Type: "string", Description: "Time since the secret was created."},
}

// Row returns a cell for each of Columns, the age as of now.
func Row(s *corev1.Secret, now time.Time) []any {
	return []any{s.Name, string(s.Type), int64(len(s.Data)), age.Since(s.CreationTimestamp.Time, now)}
}
