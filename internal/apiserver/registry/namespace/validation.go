package namespace

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate returns every fault of a new namespace.
func Validate(ns *corev1.Namespace) field.ErrorList {
	errs := validation.ValidateObjectMeta(&ns.ObjectMeta, false, validation.ValidateNamespaceName, field.NewPath("metadata"))
	for _, name := range ns.Spec.Finalizers {
		errs = append(errs, validateFinalizer(string(name), field.NewPath("spec", "finalizers"))...)
	}
	return errs
}

// ValidateUpdate returns every fault of updated and of its change from old.
func ValidateUpdate(updated, old *corev1.Namespace) field.ErrorList {
	return append(Validate(updated), validateMetaUpdate(updated, old)...)
}

// ValidateStatusUpdate refuses a phase that contradicts the deletionTimestamp.
func ValidateStatusUpdate(updated, old *corev1.Namespace) field.ErrorList {
	errs := validateMetaUpdate(updated, old)
	// Kubernetes writes this path's last element with a capital, and clients have come to match it.
	path, phase := field.NewPath("status", "Phase"), updated.Status.Phase
	switch {
	case updated.DeletionTimestamp.IsZero() && phase != corev1.NamespaceActive:
		errs = append(errs, field.Invalid(path, phase, "may only be 'Active' if `deletionTimestamp` is empty"))
	case !updated.DeletionTimestamp.IsZero() && phase != corev1.NamespaceTerminating:
		errs = append(errs, field.Invalid(path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))
	}
	return errs
}

// ValidateFinalizeUpdate returns the faults of the finalizers that updated is left with.
func ValidateFinalizeUpdate(updated, old *corev1.Namespace) field.ErrorList {
	errs := validateMetaUpdate(updated, old)
	path := field.NewPath("spec", "finalizers")
	for i, name := range updated.Spec.Finalizers {
		errs = append(errs, validateFinalizer(string(name), path.Index(i))...)
	}
	return errs
}

func validateMetaUpdate(updated, old *corev1.Namespace) field.ErrorList {
	return validation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
}

func validateFinalizer(name string, path *field.Path) field.ErrorList {
	errs := validation.ValidateFinalizerName(name, path)
	if !strings.Contains(name, "/") && !isStandardFinalizer(name) {
		errs = append(errs, field.Invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified"))
	}
	return errs
}

func isStandardFinalizer(name string) bool {
	switch name {
	case string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents:
		return true
	}
	return false
}
