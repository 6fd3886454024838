package node_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"lanyard.dev/internal/apiserver/registry/node"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func valid() *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "node-1.example.com", ResourceVersion: "1",
			Labels: map[string]string{"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "build"},
		},
		Spec: corev1.NodeSpec{
			PodCIDRs: []string{"10.0.1.0/24", "fd00:1::/64"}, ProviderID: "own://1",
			Taints: []corev1.Taint{{Key: "example.com/gpu", Value: "yes", Effect: corev1.TaintEffectNoSchedule}, {Key: "example.com/gpu", Effect: corev1.TaintEffectNoExecute}},
		},
		Status: corev1.NodeStatus{
			Capacity: corev1.ResourceList{
				"cpu": resource.MustParse("3500m"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110"), "example.com/gpu": resource.MustParse("2"),
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}, {Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse}},
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: "node-1"}, {Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, {Type: corev1.NodeInternalIP, Address: "fd00::1"},
			},
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion: "v1.37.0", OSImage: "Debian 13", KernelVersion: "6.12", Architecture: "arm64", ContainerRuntimeVersion: "containerd://2.2",
			},
			DeclaredFeatures: []string{"Alpha", "Alpha/beta2", "Zeta"},
		},
	}
	node.SetDefaults(n)
	return n
}

func TestSetDefaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		in, want corev1.NodeSpec
	}{
		{"none", corev1.NodeSpec{}, corev1.NodeSpec{}},
		{"one", corev1.NodeSpec{PodCIDR: "a"}, corev1.NodeSpec{PodCIDR: "a", PodCIDRs: []string{"a"}}},
		{"list", corev1.NodeSpec{PodCIDRs: []string{"a", "b"}}, corev1.NodeSpec{PodCIDR: "a", PodCIDRs: []string{"a", "b"}}},
		{"agreeing", corev1.NodeSpec{PodCIDR: "a", PodCIDRs: []string{"a", "b"}}, corev1.NodeSpec{PodCIDR: "a", PodCIDRs: []string{"a", "b"}}},
		{"differing", corev1.NodeSpec{PodCIDR: "c", PodCIDRs: []string{"a", "b"}}, corev1.NodeSpec{PodCIDR: "c", PodCIDRs: []string{"c"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := &corev1.Node{Spec: test.in}
			node.SetDefaults(n)
			if diff := cmp.Diff(test.want, n.Spec); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
			if n.Status.Allocatable != nil {
				t.Errorf("allocatable of no capacity = %v", n.Status.Allocatable)
			}
		})
	}
}

func TestSetDefaultsAllocatable(t *testing.T) {
	t.Parallel()
	n := valid()
	if diff := cmp.Diff(n.Status.Capacity, n.Status.Allocatable); diff != "" {
		t.Errorf("allocatable (-want +got):\n%s", diff)
	}
	n.Status.Capacity["cpu"] = resource.MustParse("1")
	if got := n.Status.Allocatable["cpu"]; got.String() != "3500m" {
		t.Errorf("allocatable shares memory with capacity: cpu = %v", &got)
	}
	node.SetDefaults(n)
	if got := n.Status.Allocatable["cpu"]; got.String() != "3500m" {
		t.Errorf("allocatable was overwritten: cpu = %v", &got)
	}
}

func TestRow(t *testing.T) {
	t.Parallel()
	ready := valid()
	ready.Labels["node-role.kubernetes.io/"] = ""
	ready.CreationTimestamp = metav1.NewTime(now.Add(-10 * 24 * time.Hour))
	drained := valid()
	drained.Spec.Unschedulable, drained.Status.Conditions[0].Status = true, corev1.ConditionUnknown
	drained.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeExternalIP, Address: "192.0.2.1"}}
	drained.Status.NodeInfo.Architecture = ""
	for _, test := range []struct {
		name string
		node *corev1.Node
		want []any
	}{
		{"ready", ready, []any{"node-1.example.com", "Ready", "build,worker", "10d", "v1.37.0", "10.0.0.1", "<none>", "Debian 13", "6.12 (arm64)", "containerd://2.2"}},
		{"drained", drained, []any{"node-1.example.com", "NotReady,SchedulingDisabled", "build,worker", "<unknown>", "v1.37.0", "<none>", "192.0.2.1", "Debian 13", "6.12", "containerd://2.2"}},
		{"bare", &corev1.Node{}, []any{"", "Unknown", "<none>", "<unknown>", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			row := node.Row(test.node, now)
			if diff := cmp.Diff(test.want, row); diff != "" {
				t.Errorf("row (-want +got):\n%s", diff)
			}
			if len(row) != len(node.Columns) {
				t.Errorf("%d cells for %d columns", len(row), len(node.Columns))
			}
		})
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	n := valid()
	n.Spec.Unschedulable = true
	want := fields.Set{"metadata.name": "node-1.example.com", "spec.unschedulable": "true"}
	if diff := cmp.Diff(want, node.Fields(n)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
