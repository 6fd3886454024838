package node

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// validatePodCIDRs accepts one range, or one for each IP family. Those in old are accepted in whatever form they are.
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
