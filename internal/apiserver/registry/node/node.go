// Package node validates, prints and stores nodes, and sets their defaults.
//
// It does not know what runs on a node, nor which caller may write the object of a node.
package node

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"lanyard.dev/internal/apiserver/registry"
)

// Strategy returns how nodes are created and updated.
func Strategy() registry.Strategy[*corev1.Node] {
	return registry.Strategy[*corev1.Node]{
		OnCreate: func(_ context.Context, obj *corev1.Node) { taintNew(obj) },
		OnUpdate: func(_ context.Context, obj, old *corev1.Node) { obj.Status = old.Status },
		Check:    Validate, CheckUpdate: ValidateUpdate, Warn: warnings,
		Reset: registry.ResetFields("v1", "status"),
	}
}

// NewStatus returns nodes/status on the store of nodes.
func NewStatus(store *registry.Store) *registry.Subresource {
	status := registry.StrategyOf[*corev1.Node](store)
	status.OnUpdate = func(_ context.Context, obj, old *corev1.Node) { obj.Spec = old.Spec }
	status.CheckUpdate, status.Warn = ValidateStatusUpdate, nil
	status.Reset = registry.ResetFields("v1", "spec")
	return registry.NewSubresource(store, status)
}

// warnings returns Kubernetes' warnings about fields that are no longer read.
func warnings(_ context.Context, n *corev1.Node) []string {
	var all []string
	//lint:ignore SA1019 a deprecated field is still decoded, so it is still warned of
	if n.Spec.ConfigSource != nil {
		all = append(all, "spec.configSource: the feature is no longer supported")
	}
	if n.Spec.DoNotUseExternalID != "" {
		all = append(all, "spec.externalID: this field is deprecated, and is unused in Kubernetes")
	}
	return all
}

// taintNew adds a taint that keeps pods off a node that is not ready. The taint is removed when the node is ready.
func taintNew(n *corev1.Node) {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return
		}
	}
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	for i := range n.Spec.Taints {
		if n.Spec.Taints[i].MatchTaint(&taint) {
			return
		}
	}
	n.Spec.Taints = append(n.Spec.Taints, taint)
}

// SetDefaults sets allocatable to the capacity if it is missing, and makes podCIDR and podCIDRs agree. If both are set and
// differ, podCIDR is used, because older clients know only that field. SetDefaults is idempotent.
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

// Fields returns the fields that a field selector may name, with the values of n.
func Fields(n *corev1.Node) fields.Set {
	return fields.Set{"metadata.name": n.Name, "spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
}

// Columns are the columns of kubectl get nodes.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the node."},
	{Name: "Status", Type: "string", Description: "Whether the node is ready, and whether it takes new pods."},
	{Name: "Roles", Type: "string", Description: "Roles of the node, from its labels."},
	{Name: "Age", Type: "string", Description: "Time since the node was registered."},
	{Name: "Version", Type: "string", Description: "Version of the node's agent."},
	{Name: "Internal-IP", Type: "string", Priority: 1, Description: "First address within the cluster's network."},
	{Name: "External-IP", Type: "string", Priority: 1, Description: "First address from outside."},
	{Name: "OS-Image", Type: "string", Priority: 1, Description: "Operating system of the node."},
	{Name: "Kernel-Version", Type: "string", Priority: 1, Description: "Kernel of the node and, in brackets, its architecture."},
	{Name: "Container-Runtime", Type: "string", Priority: 1, Description: "Name and version of the container runtime."},
}

const (
	none = "<none>"

	rolePrefix = "node-role.kubernetes.io/"
	roleLabel  = "kubernetes.io/role"
)

// Row returns a cell for each of Columns, with the age at the time now.
func Row(n *corev1.Node, now time.Time) []any {
	info := &n.Status.NodeInfo
	return []any{
		n.Name, status(n), cmp.Or(strings.Join(roles(n.Labels), ","), none), registry.Age(n.CreationTimestamp.Time, now), info.KubeletVersion,
		address(n, corev1.NodeInternalIP), address(n, corev1.NodeExternalIP),
		cmp.Or(info.OSImage, registry.UnknownCell), kernel(info), cmp.Or(info.ContainerRuntimeVersion, registry.UnknownCell),
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

// roles returns the roles of a node from labels of both forms, node-role.kubernetes.io/ROLE and kubernetes.io/role=ROLE.
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
		return registry.UnknownCell
	}
	if info.Architecture == "" {
		return info.KernelVersion
	}
	return info.KernelVersion + " (" + info.Architecture + ")"
}
