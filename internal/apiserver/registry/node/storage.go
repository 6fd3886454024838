package node

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/apiserver/registry"
)

// Strategy returns how nodes are written.
func Strategy() registry.Strategy[*corev1.Node] {
	return registry.Strategy[*corev1.Node]{
		OnCreate: func(_ context.Context, obj *corev1.Node) { taintNew(obj) },
		OnUpdate: func(_ context.Context, obj, old *corev1.Node) { obj.Status = old.Status },
		Check:    Validate, CheckUpdate: ValidateUpdate, Warn: warnings,
		Reset: registry.ResetFields("v1", "status"),
	}
}

// NewStatus returns nodes/status on the store of nodes.
func NewStatus(store *registry.Store) *registry.Part {
	status := registry.StrategyOf[*corev1.Node](store)
	status.OnUpdate = func(_ context.Context, obj, old *corev1.Node) { obj.Spec = old.Spec }
	status.CheckUpdate, status.Warn = ValidateStatusUpdate, nil
	status.Reset = registry.ResetFields("v1", "spec")
	return registry.NewPart(store, status)
}

// warnings tells of fields that nothing reads any more, in Kubernetes' words.
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

// taintNew keeps pods off a node that has not said that it is ready. The taint goes when it does.
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
