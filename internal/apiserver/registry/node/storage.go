package node

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
)

// NewStorage returns the stores of nodes and of nodes/status.
func NewStorage(typer runtime.ObjectTyper, getter generic.RESTOptionsGetter) (*registry.Store, *registry.Part, error) {
	strategy := registry.Strategy[*corev1.Node]{
		ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator,
		OnCreate: func(_ context.Context, obj *corev1.Node) { taintNew(obj) },
		OnUpdate: func(_ context.Context, obj, old *corev1.Node) { obj.Status = old.Status },
		Check:    Validate, CheckUpdate: ValidateUpdate, Warn: warnings,
		Reset: registry.ResetFields("v1", "status"),
	}
	store, err := registry.NewStore(registry.Kind[*corev1.Node]{
		Resource: corev1.Resource("nodes"), Singular: "node", ShortNames: []string{"no"},
		New:      func() *corev1.Node { return &corev1.Node{} },
		NewList:  func() runtime.Object { return &corev1.NodeList{} },
		Strategy: strategy, Columns: Columns, Row: Row, Fields: Fields,
	}, getter)
	if err != nil {
		return nil, nil, err
	}
	status := strategy
	status.OnUpdate = func(_ context.Context, obj, old *corev1.Node) { obj.Spec = old.Spec }
	status.CheckUpdate, status.Warn = ValidateStatusUpdate, nil
	status.Reset = registry.ResetFields("v1", "spec")
	return store, registry.NewPart(store, status), nil
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
