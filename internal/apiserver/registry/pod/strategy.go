package pod

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/podsupport"
	"lanyard.dev/internal/podvalidation"
)

type (
	object   = *corev1.Pod
	strategy = registry.Strategy[object]
)

// Strategy returns how pods are created and updated.
func Strategy() registry.Strategy[*corev1.Pod] {
	return strategy{
		OnCreate: prepareForCreate, OnUpdate: prepareForUpdate,
		Check: podvalidation.Validate, CheckUpdate: podvalidation.ValidateUpdate,
		Warn:       func(_ context.Context, obj *corev1.Pod) []string { return podvalidation.Warnings(obj) },
		WarnCreate: noEffectWarnings,
		Reset:      registry.ResetFields("v1", "status"),
	}
}

// noEffectWarnings warns of fields for which the agent refuses the pod, and of those that the scheduler does not consider.
// The pod is accepted, because a kubelet may run it and another scheduler may place it.
func noEffectWarnings(_ context.Context, obj *corev1.Pod) []string {
	all := podsupport.Warnings(obj)
	return all[:min(len(all), podvalidation.MaxWarnings)]
}

func statusStrategy(s strategy) strategy {
	s.OnUpdate = func(_ context.Context, obj, old *corev1.Pod) {
		obj.Spec = old.Spec
		obj.DeletionTimestamp = nil
		// A client that writes the status does not own the pod, so it must not change its owners.
		obj.OwnerReferences = old.OwnerReferences
	}
	s.CheckUpdate = podvalidation.ValidateStatusUpdate
	s.Warn = nil
	s.Reset = registry.ResetFields("v1", "spec")
	return s
}

func prepareForCreate(_ context.Context, obj *corev1.Pod) {
	obj.Generation = 1
	obj.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: podvalidation.QOSClass(obj)}
	for range obj.Spec.SchedulingGates {
		obj.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
		break
	}
}

func prepareForUpdate(_ context.Context, obj, old *corev1.Pod) {
	obj.Status = old.Status
	obj.Generation = old.Generation
	if !equality.Semantic.DeepEqual(obj.Spec, old.Spec) {
		obj.Generation++
	}
}

// GracefulDelete returns how pods are deleted: a pod on a node remains for its grace period.
func GracefulDelete(s registry.Strategy[*corev1.Pod]) rest.RESTDeleteStrategy {
	return gracefulStrategy{s}
}

// gracefulStrategy lets a pod on a node remain for its grace period.
type gracefulStrategy struct{ strategy }

// CheckGracefulDelete implements rest.RESTGracefulDeleteStrategy. A pod that has no node, or has ended, is removed at once.
// So is the pod of a process, because no agent would report its end.
func (gracefulStrategy) CheckGracefulDelete(_ context.Context, obj runtime.Object, options *metav1.DeleteOptions) bool {
	if options == nil {
		return false
	}
	pod := obj.(*corev1.Pod)
	period := int64(0)
	switch {
	case options.GracePeriodSeconds != nil:
		period = *options.GracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		period = *pod.Spec.TerminationGracePeriodSeconds
	}
	ended := pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
	switch {
	case pod.Spec.NodeName == "" || ended || podannotation.IsProcess(pod):
		period = 0
	case period < 0:
		period = 1
	}
	options.GracePeriodSeconds = &period
	return true
}

// NewStatus returns pods/status on the store of pods.
func NewStatus(store *registry.Store) *registry.Subresource {
	return registry.NewSubresource(store, statusStrategy(registry.StrategyOf[object](store)))
}

// NewBinding returns pods/binding on the store of pods.
func NewBinding(store *registry.Store) *BindingREST { return &BindingREST{store: store} }

// NewEviction returns pods/eviction on the store of pods.
func NewEviction(store *registry.Store) *EvictionREST { return &EvictionREST{store: store} }

// Fields returns the fields that a field selector on pods may name, with the values of pod.
func Fields(pod *corev1.Pod) fields.Set {
	return fields.Set{
		"metadata.name":            pod.Name,
		"metadata.namespace":       pod.Namespace,
		"spec.nodeName":            pod.Spec.NodeName,
		"spec.restartPolicy":       string(pod.Spec.RestartPolicy),
		"spec.schedulerName":       pod.Spec.SchedulerName,
		"spec.serviceAccountName":  pod.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(pod.Spec.HostNetwork),
		"status.phase":             string(pod.Status.Phase),
		"status.podIP":             firstIP(&pod.Status),
		"status.nominatedNodeName": pod.Status.NominatedNodeName,
	}
}

// firstIP returns the primary address of the pod, or "" if it has none.
func firstIP(status *corev1.PodStatus) string {
	if len(status.PodIPs) > 0 {
		return status.PodIPs[0].IP
	}
	return status.PodIP
}
