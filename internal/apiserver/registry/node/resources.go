package node

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateResources(list corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for name, quantity := range list {
		at := path.Child(string(name))
		if quantity.Sign() < 0 {
			errs = append(errs, field.Invalid(at, quantity.String(), validation.IsNegativeErrorMsg))
		}
		// RoundUp works on the loop's own copy; it reports whether there was nothing to round.
		if isCounted(name) && !quantity.RoundUp(0) {
			errs = append(errs, field.Invalid(at, list[name], "must be an integer"))
		}
	}
	return errs
}

// isCounted reports whether there can only be a whole number of name: objects, and the devices of other vendors.
func isCounted(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		return true
	}
	return isExtended(string(name))
}

// isExtended reports whether name is a resource outside kubernetes.io that a quota could limit.
func isExtended(name string) bool {
	if !strings.Contains(name, "/") || strings.Contains(name, corev1.ResourceDefaultNamespacePrefix) {
		return false
	}
	return !strings.HasPrefix(name, corev1.DefaultResourceRequestsPrefix) &&
		len(utilvalidation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) == 0
}
