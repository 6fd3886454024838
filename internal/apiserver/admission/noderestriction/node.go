package noderestriction

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
)

// restrictNode allows a node to register itself and to write its status. Labels and taints decide which pods are bound to it,
// so it may not choose those.
func restrictNode(node string, a admission.Attributes) error {
	if name := nameOf(a); name != node {
		return forbid(a, "node %q is not allowed to modify node %q", node, name)
	}
	switch a.GetOperation() {
	case admission.Create:
		return registers(node, a)
	case admission.Update:
		return changes(node, a)
	}
	return nil
}

func registers(node string, a admission.Attributes) error {
	obj, ok := a.GetObject().(*corev1.Node)
	if !ok {
		return unexpected(a, a.GetObject())
	}
	if configSource(obj) != nil {
		return forbid(a, "node %q is not allowed to create pods with a non-nil configSource", node)
	}
	if refused := refusedLabels(nil, obj.Labels); len(refused) > 0 {
		return forbid(a, "node %q is not allowed to set the following labels: %s", node, strings.Join(refused, ", "))
	}
	return nil
}

func changes(node string, a admission.Attributes) error {
	old, ok := a.GetOldObject().(*corev1.Node)
	if !ok {
		return unexpected(a, a.GetOldObject())
	}
	updated, ok := a.GetObject().(*corev1.Node)
	if !ok {
		return unexpected(a, a.GetObject())
	}
	source := configSource(updated)
	switch {
	case source != nil && !equality.Semantic.DeepEqual(source, configSource(old)):
		return forbid(a, "node %q is not allowed to update configSource to a new non-nil configSource", node)
	case !equality.Semantic.DeepEqual(updated.Spec.Taints, old.Spec.Taints):
		return forbid(a, "node %q is not allowed to modify taints", node)
	// Where a garbage collector runs, it deletes an object whose owner does not exist. A node could have its Node deleted in
	// this way, and register again without the taints.
	case !equality.Semantic.DeepEqual(updated.OwnerReferences, old.OwnerReferences):
		return forbid(a, "node %q is not allowed to modify ownerReferences", node)
	}
	if refused := refusedLabels(old.Labels, updated.Labels); len(refused) > 0 {
		return forbid(a, "is not allowed to modify labels: %s", strings.Join(refused, ", "))
	}
	return nil
}

// configSource returns the config map that the node reads its configuration from. A node that could choose it could read any
// config map.
func configSource(node *corev1.Node) *corev1.NodeConfigSource {
	//lint:ignore SA1019 a deprecated field is still decoded, so it is still checked
	return node.Spec.ConfigSource
}

// refusedLabels returns, sorted, the keys of labels that differ and that a node may not set.
func refusedLabels(old, updated map[string]string) []string {
	var refused []string
	for key, value := range updated {
		if was, ok := old[key]; (!ok || was != value) && !settable(key) {
			refused = append(refused, key)
		}
	}
	for key := range old {
		if _, ok := updated[key]; !ok && !settable(key) {
			refused = append(refused, key)
		}
	}
	slices.Sort(refused)
	return refused
}

// settable reports whether a node may set the label on itself. A node may set every label outside of Kubernetes'
// domains, and those inside that kubelets set.
func settable(key string) bool {
	prefix, _, ok := strings.Cut(key, "/")
	switch {
	case !ok:
		return true
	case within(prefix, corev1.LabelNamespaceNodeRestriction):
		return false
	case !within(prefix, "kubernetes.io") && !within(prefix, "k8s.io"):
		return true
	case within(prefix, corev1.LabelNamespaceSuffixKubelet), within(prefix, corev1.LabelNamespaceSuffixNode):
		return true
	}
	switch key {
	case corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable, corev1.LabelInstanceType,
		corev1.LabelTopologyZone, corev1.LabelTopologyRegion,
		corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
		"failure-domain.kubernetes.io/zone", "failure-domain.kubernetes.io/region", "kubernetes.io/instance-type",
		"beta.kubernetes.io/os", "beta.kubernetes.io/arch":
		return true
	}
	return false
}

// within reports whether domain is other or below it.
func within(domain, other string) bool {
	return domain == other || strings.HasSuffix(domain, "."+other)
}
