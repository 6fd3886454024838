package nodelifecycle

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"lanyard.dev/internal/controller"
)

// derived are the taints that follow from the state of a node, with the condition for each. Their effect is NoSchedule.
var derived = []struct {
	key  string
	when func(*corev1.Node) bool
}{
	{corev1.TaintNodeNotReady, func(n *corev1.Node) bool {
		ready := controller.NodeReady(n)
		return ready != corev1.ConditionTrue && ready != corev1.ConditionUnknown
	}},
	{corev1.TaintNodeUnreachable, func(n *corev1.Node) bool { return controller.NodeReady(n) == corev1.ConditionUnknown }},
	{corev1.TaintNodeUnschedulable, func(n *corev1.Node) bool { return n.Spec.Unschedulable }},
	{corev1.TaintNodeMemoryPressure, under(corev1.NodeMemoryPressure)},
	{corev1.TaintNodeDiskPressure, under(corev1.NodeDiskPressure)},
	{corev1.TaintNodePIDPressure, under(corev1.NodePIDPressure)},
	{corev1.TaintNodeNetworkUnavailable, under(corev1.NodeNetworkUnavailable)},
}

func under(kind corev1.NodeConditionType) func(*corev1.Node) bool {
	return func(n *corev1.Node) bool {
		is := condition(&n.Status, kind)
		return is != nil && is.Status == corev1.ConditionTrue
	}
}

// taints returns the taints that the node should have: the taints that its author set, and the taints that follow from its state.
func taints(node *corev1.Node) []corev1.Taint {
	right := slices.Clone(node.Spec.Taints)
	for _, d := range derived {
		is := func(t corev1.Taint) bool { return t.Key == d.key && t.Effect == corev1.TaintEffectNoSchedule }
		switch has := slices.ContainsFunc(right, is); {
		case d.when(node) && !has:
			right = append(right, corev1.Taint{Key: d.key, Effect: corev1.TaintEffectNoSchedule})
		case !d.when(node) && has:
			right = slices.DeleteFunc(right, is)
		}
	}
	return right
}

// hasTaints reports whether the node has the taints that it should have. taints keeps their order.
func hasTaints(node *corev1.Node) bool {
	return slices.EqualFunc(node.Spec.Taints, taints(node), func(a, b corev1.Taint) bool { return a.Key == b.Key && a.Effect == b.Effect })
}

// taint corrects the taints. They are derived from the version that is written, so all replicas write the same.
func (c *Controller) taint(ctx context.Context, read *corev1.Node) error {
	if hasTaints(read) {
		return nil
	}
	nodes := c.Client.CoreV1().Nodes()
	_, err := controller.Change(ctx, read.Name, nodes.Get, nodes.Update, func(node *corev1.Node) bool {
		if hasTaints(node) {
			return false
		}
		node.Spec.Taints = taints(node)
		return true
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("taint node %s: %w", read.Name, err)
	}
	return nil
}
