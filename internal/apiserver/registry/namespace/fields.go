package namespace

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Fields returns what a field selector may ask of ns. "name" is an old spelling that Kubernetes keeps.
func Fields(ns *corev1.Namespace) fields.Set {
	return fields.Set{
		"metadata.name": ns.Name,
		"name":          ns.Name,
		"status.phase":  string(ns.Status.Phase),
	}
}
