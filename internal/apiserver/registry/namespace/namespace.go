// Package namespace serves namespaces: their defaults, what is refused, their table, their storage.
//
// It does not know what a namespace holds, nor how it is emptied at its end.
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

// Fields returns what a field selector may ask of ns. "name" is an old spelling that Kubernetes keeps.
func Fields(ns *corev1.Namespace) fields.Set {
	return fields.Set{
		"metadata.name": ns.Name,
		"name":          ns.Name,
		"status.phase":  string(ns.Status.Phase),
	}
}

// Columns are those of kubectl get namespaces.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the namespace."},
	{Name: "Status", Type: "string", Description: "Whether the namespace is in use or coming to its end."},
	{Name: "Age", Type: "string", Description: "Time since the namespace was created."},
}

// Row returns a cell for each of Columns, the age as of now.
func Row(ns *corev1.Namespace, now time.Time) []any {
	return []any{ns.Name, string(ns.Status.Phase), registry.Age(ns.CreationTimestamp.Time, now)}
}

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
