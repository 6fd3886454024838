package serviceaccount

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry/age"
)

// Columns are those of kubectl get serviceaccounts. There is no count of secrets: nothing fills that list in any
// more, and Kubernetes 1.37 does not print it either.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the service account."},
	{Name: "Age", Type: "string", Description: "Time since the service account was created."},
}

// Row returns a cell for each of Columns, the age as of now.
func Row(account *corev1.ServiceAccount, now time.Time) []any {
	return []any{account.Name, age.Since(account.CreationTimestamp.Time, now)}
}
