package node

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry/age"
)

// Columns are those of kubectl get nodes.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the node."},
	{Name: "Status", Type: "string", Description: "Whether the node is ready, and whether it takes new pods."},
	{Name: "Roles", Type: "string", Description: "What the node is for, as its labels say."},
	{Name: "Age", Type: "string", Description: "Time since the node was registered."},
	{Name: "Version", Type: "string", Description: "Version of the node's agent."},
	{Name: "Internal-IP", Type: "string", Priority: 1, Description: "First address within the cluster's network."},
	{Name: "External-IP", Type: "string", Priority: 1, Description: "First address from outside."},
	{Name: "OS-Image", Type: "string", Priority: 1, Description: "Operating system of the node."},
	{Name: "Kernel-Version", Type: "string", Priority: 1, Description: "Kernel of the node and, in brackets, its architecture."},
	{Name: "Container-Runtime", Type: "string", Priority: 1, Description: "What runs containers, and its version."},
}

const (
	none = "<none>"

	rolePrefix = "node-role.kubernetes.io/"
	roleLabel  = "kubernetes.io/role"
)

// Row returns a cell for each of Columns, the age as of now.
func Row(n *corev1.Node, now time.Time) []any {
	info := &n.Status.NodeInfo
	return []any{
		n.Name, status(n), cmp.Or(strings.Join(roles(n.Labels), ","), none), age.Since(n.CreationTimestamp.Time, now), info.KubeletVersion,
		address(n, corev1.NodeInternalIP), address(n, corev1.NodeExternalIP),
		cmp.Or(info.OSImage, age.Unknown), kernel(info), cmp.Or(info.ContainerRuntimeVersion, age.Unknown),
	}
}

func status(n *corev1.Node) string {
	ready := "Unknown"
	for _, condition := range n.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		ready = "NotReady"
		if condition.Status == corev1.ConditionTrue {
			ready = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		return ready + ",SchedulingDisabled"
	}
	return ready
}

// roles reads labels of either form, node-role.kubernetes.io/ROLE and kubernetes.io/role=ROLE.
func roles(labels map[string]string) []string {
	found := map[string]bool{}
	for key, value := range labels {
		if role, ok := strings.CutPrefix(key, rolePrefix); ok && role != "" {
			found[role] = true
		}
		if key == roleLabel && value != "" {
			found[value] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func address(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			return a.Address
		}
	}
	return none
}

func kernel(info *corev1.NodeSystemInfo) string {
	if info.KernelVersion == "" {
		return age.Unknown
	}
	if info.Architecture == "" {
		return info.KernelVersion
	}
	return info.KernelVersion + " (" + info.Architecture + ")"
}
