package nodelife

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/controller"
)

// derived are the taints that follow from a node's state, and when. Their effect is NoSchedule.
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

// taints returns those that the node should have: its own, and what its state says.
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

// tainted tells whether the node has the taints it should have. Taints keep their order, so it takes no more than this.
func tainted(node *corev1.Node) bool {
	return slices.EqualFunc(node.Spec.Taints, taints(node), func(a, b corev1.Taint) bool { return a.Key == b.Key && a.Effect == b.Effect })
}

// taint keeps the taints true. What they follow from is read in the same step, so that replicas cannot differ.
func (c *Controller) taint(ctx context.Context, looked *corev1.Node) error {
	if tainted(looked) {
		return nil
	}
	set := controller.Change(func(node *corev1.Node) { node.Spec.Taints = taints(node) })
	_, _, err := c.Nodes.Update(ctx, looked.Name, set, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("taint node %s: %w", looked.Name, err)
	}
	return nil
}
