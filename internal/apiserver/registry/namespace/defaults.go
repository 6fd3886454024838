package namespace

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// SetDefaults labels ns with its own name, which no client can change, and gives it the phase Active where it has
// none. It is idempotent. A namespace that is still to get its name (generateName) is labelled by PrepareForCreate.
func SetDefaults(ns *corev1.Namespace) {
	label(ns)
	if ns.Status.Phase == "" {
		ns.Status.Phase = corev1.NamespaceActive
	}
}

// PrepareForCreate makes a new namespace active and lets it end only after its content: it overwrites the status and
// adds the finalizer "kubernetes". That finalizer is no default, since an ending namespace loses it again.
func PrepareForCreate(ns *corev1.Namespace) {
	label(ns)
	ns.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		ns.Spec.Finalizers = append(ns.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
}

func label(ns *corev1.Namespace) {
	if ns.Name == "" {
		return
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
}
