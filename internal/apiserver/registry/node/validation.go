package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// Validate returns the faults of a new node.
func Validate(n *corev1.Node) field.ErrorList {
	errs := validation.ValidateObjectMeta(&n.ObjectMeta, false, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, validateContent(n)...)
	errs = append(errs, validatePodCIDRs(n.Spec.PodCIDRs, nil, field.NewPath("spec", "podCIDRs"))...)
	return append(errs, validatePreemption(n.Spec.PodPreemptionPolicy)...)
}

// ValidateUpdate returns the faults of updated and of its difference from old. Taints and unschedulable may change, and
// empty fields of the spec may be set. The rest of the spec must not change.
func ValidateUpdate(updated, old *corev1.Node) field.ErrorList {
	errs := validation.ValidateObjectMeta(&updated.ObjectMeta, false, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, validatePodCIDRs(updated.Spec.PodCIDRs, old.Spec.PodCIDRs, field.NewPath("spec", "podCIDRs"))...)
	errs = append(errs, validatePreemption(updated.Spec.PodPreemptionPolicy)...)
	return append(errs, ValidateStatusUpdate(updated, old)...)
}

// ValidateStatusUpdate returns the faults of an update of the status.
func ValidateStatusUpdate(updated, old *corev1.Node) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateContent(updated)...)
	errs = append(errs, validateAddresses(updated.Status.Addresses, field.NewPath("status", "addresses"))...)
	//lint:ignore SA1019 a deprecated field is still decoded, so it is still checked
	errs = append(errs, validateConfigSource(updated.Spec.ConfigSource, field.NewPath("spec", "configSource"))...)
	errs = append(errs, validateConfigStatus(updated.Status.Config, field.NewPath("status", "config"))...)
	return append(errs, validateFixedSpec(&updated.Spec, &old.Spec, field.NewPath("spec"))...)
}

// validateContent checks the fields that are checked for every request that writes a node.
func validateContent(n *corev1.Node) field.ErrorList {
	meta, status := field.NewPath("metadata"), field.NewPath("status")
	errs := validateAnnotations(n.Annotations, meta.Child("annotations"))
	// Kubernetes reports the taints of the spec under metadata, and clients may rely on it.
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

// validatePreemption refuses a field whose feature gate is alpha and disabled in Kubernetes 1.37.
func validatePreemption(policy *corev1.NodePodPreemptionPolicy) field.ErrorList {
	if policy == nil {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec", "podPreemptionPolicy"), "")}
}

// validateAnnotations checks the two annotations of nodes that contain JSON for schedulers.
func validateAnnotations(annotations map[string]string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if text := annotations[corev1.TaintsAnnotationKey]; text != "" {
		var taints []corev1.Taint
		if err := json.Unmarshal([]byte(text), &taints); err != nil {
			errs = append(errs, field.Invalid(path, corev1.TaintsAnnotationKey, err.Error()))
		}
		errs = append(errs, validateTaints(taints, path.Child(corev1.TaintsAnnotationKey))...)
	}
	if text := annotations[corev1.PreferAvoidPodsAnnotationKey]; text != "" {
		errs = append(errs, validateAvoidPods(text, path)...)
	}
	return errs
}

func validateAvoidPods(text string, path *field.Path) field.ErrorList {
	var avoid corev1.AvoidPods
	if err := json.Unmarshal([]byte(text), &avoid); err != nil {
		return field.ErrorList{field.Invalid(path.Child("AvoidPods"), corev1.PreferAvoidPodsAnnotationKey, err.Error())}
	}
	var errs field.ErrorList
	for i, entry := range avoid.PreferAvoidPods {
		signature := path.Child(corev1.PreferAvoidPodsAnnotationKey).Index(i).Child("PodSignature")
		switch controller := entry.PodSignature.PodController; {
		case controller == nil:
			errs = append(errs, field.Required(signature, ""))
		case controller.Controller == nil || !*controller.Controller:
			errs = append(errs, field.Invalid(signature.Child("PodController", "Controller"), false, "must point to a controller"))
		}
	}
	return errs
}

const oneReference = "exactly one reference subfield must be non-nil"

// validateConfigSource checks a field that is no longer read, so that invalid manifests are still refused. The spec names a
// config map; only the status has its UID and resourceVersion.
func validateConfigSource(source *corev1.NodeConfigSource, path *field.Path) field.ErrorList {
	if source == nil {
		return nil
	}
	if source.ConfigMap == nil {
		return field.ErrorList{field.Invalid(path, source, oneReference)}
	}
	var errs field.ErrorList
	at := path.Child("configMap")
	if source.ConfigMap.UID != "" {
		errs = append(errs, field.Forbidden(at.Child("uid"), "uid must not be set in spec"))
	}
	if source.ConfigMap.ResourceVersion != "" {
		errs = append(errs, field.Forbidden(at.Child("resourceVersion"), "resourceVersion must not be set in spec"))
	}
	return append(errs, validateConfigMapRef(source.ConfigMap, at)...)
}

func validateConfigStatus(status *corev1.NodeConfigStatus, path *field.Path) field.ErrorList {
	if status == nil {
		return nil
	}
	errs := validateConfigUsed(status.Assigned, path.Child("assigned"))
	errs = append(errs, validateConfigUsed(status.Active, path.Child("active"))...)
	return append(errs, validateConfigUsed(status.LastKnownGood, path.Child("lastKnownGood"))...)
}

func validateConfigUsed(source *corev1.NodeConfigSource, path *field.Path) field.ErrorList {
	if source == nil {
		return nil
	}
	if source.ConfigMap == nil {
		return field.ErrorList{field.Invalid(path, source, oneReference)}
	}
	var errs field.ErrorList
	at := path.Child("configMap")
	if source.ConfigMap.UID == "" {
		errs = append(errs, field.Required(at.Child("uid"), "uid must be set in status"))
	}
	if source.ConfigMap.ResourceVersion == "" {
		errs = append(errs, field.Required(at.Child("resourceVersion"), "resourceVersion must be set in status"))
	}
	return append(errs, validateConfigMapRef(source.ConfigMap, at)...)
}

func validateConfigMapRef(ref *corev1.ConfigMapNodeConfigSource, path *field.Path) field.ErrorList {
	isNamespace := func(s string) []string { return validation.ValidateNamespaceName(s, false) }
	isName := func(s string) []string { return validation.NameIsDNSSubdomain(s, false) }
	errs := validateSet(path, "namespace", ref.Namespace, isNamespace)
	errs = append(errs, validateSet(path, "name", ref.Name, isName)...)
	return append(errs, validateSet(path, "kubeletConfigKey", ref.KubeletConfigKey, utilvalidation.IsConfigMapKey)...)
}

func validateSet(path *field.Path, name, value string, faults func(string) []string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path.Child(name), name+" must be set")}
	}
	var errs field.ErrorList
	for _, msg := range faults(value) {
		errs = append(errs, field.Invalid(path.Child(name), value, msg))
	}
	return errs
}

const (
	featureOrder = "list must be sorted alphabetically"
	featureLong  = "invalid feature name %q: must be no more than %d characters"
	featureForm  = "invalid feature name %q: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
)

// validateFeatures requires that the declared features are sorted, so that a scheduler can search them.
func validateFeatures(features []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, feature := range features {
		if msg := featureFault(feature); msg != "" {
			errs = append(errs, field.Invalid(path.Index(i), feature, msg))
		}
		if i == 0 {
			continue
		}
		switch strings.Compare(features[i-1], feature) {
		case 0:
			errs = append(errs, field.Duplicate(path.Index(i), feature))
		case 1:
			errs = append(errs, field.Invalid(path.Index(i), feature, featureOrder))
		}
	}
	return errs
}

func featureFault(name string) string {
	if len(name) > utilvalidation.DNS1123SubdomainMaxLength {
		return fmt.Sprintf(featureLong, name, utilvalidation.DNS1123SubdomainMaxLength)
	}
	if name == "" || !isUpper(name[0]) {
		return fmt.Sprintf(featureForm, name)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if !isWord(segment) {
			return fmt.Sprintf(featureForm, name)
		}
	}
	return ""
}

// isWord reports whether s is a letter followed by letters and digits, all of them ASCII.
func isWord(s string) bool {
	for i := range len(s) {
		letter := isUpper(s[i]) || 'a' <= s[i] && s[i] <= 'z'
		digit := '0' <= s[i] && s[i] <= '9'
		if !letter && (i == 0 || !digit) {
			return false
		}
	}
	return s != ""
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// validatePodCIDRs accepts one range, or one for each IP family. A range that is in old is accepted in any form.
func validatePodCIDRs(cidrs, old []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := make(map[string]bool, len(cidrs))
	for i, cidr := range cidrs {
		errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(path.Index(i), cidr, true, old)...)
		if seen[cidr] {
			errs = append(errs, field.Duplicate(path.Index(i), cidr))
		}
		seen[cidr] = true
	}
	if len(cidrs) < 2 {
		return errs
	}
	dual, err := netutils.IsDualStackCIDRStrings(cidrs)
	if err != nil {
		errs = append(errs, field.InternalError(path, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%w", err)))
	}
	if !dual || len(cidrs) > 2 {
		errs = append(errs, field.Invalid(path, cidrs, "may specify no more than one CIDR for each IP family"))
	}
	return errs
}

func validateAddresses(addresses []corev1.NodeAddress, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := make(map[corev1.NodeAddress]bool, len(addresses))
	for i, address := range addresses {
		if seen[address] {
			errs = append(errs, field.Duplicate(path.Index(i), address))
		}
		seen[address] = true
	}
	return errs
}

func validateResources(list corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for name, quantity := range list {
		at := path.Child(string(name))
		if quantity.Sign() < 0 {
			errs = append(errs, field.Invalid(at, quantity.String(), validation.IsNegativeErrorMsg))
		}
		// RoundUp changes the copy of the loop. It reports whether the quantity was already a whole number.
		if isCounted(name) && !quantity.RoundUp(0) {
			errs = append(errs, field.Invalid(at, list[name], "must be an integer"))
		}
	}
	return errs
}

// isCounted reports whether quantities of the resource must be whole numbers: numbers of objects, and devices of other vendors.
func isCounted(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		return true
	}
	return isExtended(string(name))
}

// isExtended reports whether name is a resource outside kubernetes.io that a quota can limit.
func isExtended(name string) bool {
	if !strings.Contains(name, "/") || strings.Contains(name, corev1.ResourceDefaultNamespacePrefix) {
		return false
	}
	return !strings.HasPrefix(name, corev1.DefaultResourceRequestsPrefix) &&
		len(utilvalidation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) == 0
}
