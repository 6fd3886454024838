package node

import corev1 "k8s.io/api/core/v1"

// SetDefaults makes allocatable the whole capacity where it is missing, and podCIDR and podCIDRs agree: where both are
// given and differ, podCIDR wins, as older clients know no other. It is idempotent.
func SetDefaults(n *corev1.Node) {
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
	spec := &n.Spec
	if spec.PodCIDR != "" && (len(spec.PodCIDRs) == 0 || spec.PodCIDRs[0] != spec.PodCIDR) {
		spec.PodCIDRs = []string{spec.PodCIDR}
	}
	if len(spec.PodCIDRs) > 0 {
		spec.PodCIDR = spec.PodCIDRs[0]
	}
}
