// Package namespace serves namespaces: it sets their defaults, validates, prints, stores, terminates and finalizes them.
//
// It does not know what a namespace contains, nor how its contents are deleted.
package namespace

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/registry"
)

// SetDefaults labels ns with its own name, which no client can change, and sets the phase Active if there is none. It is
// idempotent. PrepareForCreate labels a namespace that gets its name later (generateName).
func SetDefaults(ns *corev1.Namespace) {
	label(ns)
	if ns.Status.Phase == "" {
		ns.Status.Phase = corev1.NamespaceActive
	}
}

// PrepareForCreate overwrites the status of a new namespace and adds the finalizer "kubernetes", so that the namespace
// exists until its contents are deleted. The finalizer is not a default, because a terminating namespace loses it.
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

// Fields returns the fields that a field selector may name, with the values of ns. Kubernetes keeps "name" for
// compatibility.
func Fields(ns *corev1.Namespace) fields.Set {
	return fields.Set{
		"metadata.name": ns.Name,
		"name":          ns.Name,
		"status.phase":  string(ns.Status.Phase),
	}
}

// Columns are the columns of kubectl get namespaces.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the namespace."},
	{Name: "Status", Type: "string", Description: "Phase of the namespace: Active or Terminating."},
	{Name: "Age", Type: "string", Description: "Time since the namespace was created."},
}

// Row returns a cell for each of Columns, with the age at the time now.
func Row(ns *corev1.Namespace, now time.Time) []any {
	return []any{ns.Name, string(ns.Status.Phase), registry.Age(ns.CreationTimestamp.Time, now)}
}

// Validate returns the faults of a new namespace.
func Validate(ns *corev1.Namespace) field.ErrorList {
	errs := validation.ValidateObjectMeta(&ns.ObjectMeta, false, validation.ValidateNamespaceName, field.NewPath("metadata"))
	for _, name := range ns.Spec.Finalizers {
		errs = append(errs, validateFinalizer(string(name), field.NewPath("spec", "finalizers"))...)
	}
	return errs
}

// ValidateUpdate returns the faults of updated and of its difference from old.
func ValidateUpdate(updated, old *corev1.Namespace) field.ErrorList {
	return append(Validate(updated), validateMetaUpdate(updated, old)...)
}

// ValidateStatusUpdate refuses a phase that contradicts the deletionTimestamp.
func ValidateStatusUpdate(updated, old *corev1.Namespace) field.ErrorList {
	errs := validateMetaUpdate(updated, old)
	// Kubernetes begins the last element of this path with a capital, and clients may rely on it.
	path, phase := field.NewPath("status", "Phase"), updated.Status.Phase
	switch {
	case updated.DeletionTimestamp.IsZero() && phase != corev1.NamespaceActive:
		errs = append(errs, field.Invalid(path, phase, "may only be 'Active' if `deletionTimestamp` is empty"))
	case !updated.DeletionTimestamp.IsZero() && phase != corev1.NamespaceTerminating:
		errs = append(errs, field.Invalid(path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))
	}
	return errs
}

// ValidateFinalizeUpdate returns the faults of the finalizers that remain in updated.
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
