package node

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate returns every fault of a new node.
func Validate(n *corev1.Node) field.ErrorList {
	errs := validation.ValidateObjectMeta(&n.ObjectMeta, false, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, validateContent(n)...)
	errs = append(errs, validatePodCIDRs(n.Spec.PodCIDRs, nil, field.NewPath("spec", "podCIDRs"))...)
	return append(errs, validatePreemption(n.Spec.PodPreemptionPolicy)...)
}

// ValidateUpdate returns every fault of updated and of its change from old. Taints and unschedulable may change, and
// what is empty may be filled in; the rest of the spec stays.
func ValidateUpdate(updated, old *corev1.Node) field.ErrorList {
	errs := validation.ValidateObjectMeta(&updated.ObjectMeta, false, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, validatePodCIDRs(updated.Spec.PodCIDRs, old.Spec.PodCIDRs, field.NewPath("spec", "podCIDRs"))...)
	errs = append(errs, validatePreemption(updated.Spec.PodPreemptionPolicy)...)
	return append(errs, ValidateStatusUpdate(updated, old)...)
}

// ValidateStatusUpdate returns the faults of updated and of its change from old that an update of the status can make.
func ValidateStatusUpdate(updated, old *corev1.Node) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateContent(updated)...)
	errs = append(errs, validateAddresses(updated.Status.Addresses, field.NewPath("status", "addresses"))...)
	//lint:ignore SA1019 a deprecated field is still decoded, so it is still checked
	errs = append(errs, validateConfigSource(updated.Spec.ConfigSource, field.NewPath("spec", "configSource"))...)
	errs = append(errs, validateConfigStatus(updated.Status.Config, field.NewPath("status", "config"))...)
	return append(errs, validateFixedSpec(&updated.Spec, &old.Spec, field.NewPath("spec"))...)
}

// validateContent holds for a node however it was written.
func validateContent(n *corev1.Node) field.ErrorList {
	meta, status := field.NewPath("metadata"), field.NewPath("status")
	errs := validateAnnotations(n.Annotations, meta.Child("annotations"))
	// Kubernetes reports a spec's taints under metadata, and clients have come to match it.
	errs = append(errs, validateTaints(n.Spec.Taints, meta.Child("taints"))...)
	errs = append(errs, validateResources(n.Status.Capacity, status.Child("capacity"))...)
	errs = append(errs, validateResources(n.Status.Allocatable, status.Child("allocatable"))...)
	return append(errs, validateFeatures(n.Status.DeclaredFeatures, status.Child("declaredFeatures"))...)
}

func validateFixedSpec(updated, old *corev1.NodeSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(old.PodCIDRs) > 0 && !slices.Equal(updated.PodCIDRs, old.PodCIDRs) {
		errs = append(errs, field.Forbidden(path.Child("podCIDRs"), `node updates may not change podCIDR except from "" to valid`))
	}
	if old.ProviderID != "" && updated.ProviderID != old.ProviderID {
		errs = append(errs, field.Forbidden(path.Child("providerID"), `node updates may not change providerID except from "" to valid`))
	}
	if updated.DoNotUseExternalID != old.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(path.Child("externalID"), "may not be updated"))
	}
	return errs
}

type taintKey struct {
	effect corev1.TaintEffect
	key    string
}

func validateTaints(taints []corev1.Taint, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := make(map[taintKey]bool, len(taints))
	for i, taint := range taints {
		at := path.Index(i)
		errs = append(errs, metav1validation.ValidateLabelName(taint.Key, at.Child("key"))...)
		for _, msg := range utilvalidation.IsValidLabelValue(taint.Value) {
			errs = append(errs, field.Invalid(at.Child("value"), taint.Value, msg))
		}
		errs = append(errs, validateEffect(taint.Effect, at.Child("effect"))...)
		id := taintKey{taint.Effect, taint.Key}
		if seen[id] {
			duplicate := field.Duplicate(at, taint)
			duplicate.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, duplicate)
		}
		seen[id] = true
	}
	return errs
}

func validateEffect(effect corev1.TaintEffect, path *field.Path) field.ErrorList {
	effects := []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}
	switch {
	case effect == "":
		return field.ErrorList{field.Required(path, "")}
	case !slices.Contains(effects, effect):
		return field.ErrorList{field.NotSupported(path, effect, effects)}
	}
	return nil
}

// validatePreemption refuses a field whose feature gate is alpha and off in Kubernetes 1.37.
func validatePreemption(policy *corev1.NodePodPreemptionPolicy) field.ErrorList {
	if policy == nil {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec", "podPreemptionPolicy"), "")}
}
