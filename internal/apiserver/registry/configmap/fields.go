package configmap

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Fields returns what a field selector may ask of cm.
func Fields(cm *corev1.ConfigMap) fields.Set {
	return fields.Set{"metadata.name": cm.Name, "metadata.namespace": cm.Namespace}
}
