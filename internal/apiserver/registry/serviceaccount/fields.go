package serviceaccount

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Fields returns what a field selector may ask of account.
func Fields(account *corev1.ServiceAccount) fields.Set {
	return fields.Set{"metadata.name": account.Name, "metadata.namespace": account.Namespace}
}
