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

// Strategy returns how pods are written.
func Strategy() registry.Strategy[*corev1.Pod] {
	return strategy{
		OnCreate: prepareForCreate, OnUpdate: prepareForUpdate,
		Check: podvalidation.Validate, CheckUpdate: podvalidation.ValidateUpdate,
		Warn:       func(_ context.Context, obj *corev1.Pod) []string { return podvalidation.Warnings(obj) },
		WarnCreate: notHonoured,
		Reset:      registry.ResetFields("v1", "status"),
	}
}

// notHonoured warns of fields for which the agent refuses the pod, and of those that the scheduler does not consider. They
// are accepted, since a kubelet may run the pod and another scheduler may place it.
func notHonoured(_ context.Context, obj *corev1.Pod) []string {
	all := podsupport.Warnings(obj)
	return all[:min(len(all), podvalidation.MaxWarnings)]
}

func statusStrategy(s strategy) strategy {
	s.OnUpdate = func(_ context.Context, obj, old *corev1.Pod) {
		obj.Spec = old.Spec
		obj.DeletionTimestamp = nil
		// Only whoever owns the pod changes its owners, and a status writer does not own it.
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

// GracefulDelete returns how pods are deleted: one on a node gets the time that its spec asks for.
func GracefulDelete(s registry.Strategy[*corev1.Pod]) rest.RESTDeleteStrategy {
	return gracefulStrategy{s}
}

// gracefulStrategy gives a pod on a node the time its spec asks for before it is gone.
type gracefulStrategy struct{ strategy }

// CheckGracefulDelete implements rest.RESTGracefulDeleteStrategy. A pod that never reached a node, or has ended, has
// nothing to wait for, and of one that stands for a process no agent would ever say that it has ended.
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
func NewStatus(store *registry.Store) *registry.Part {
	return registry.NewPart(store, statusStrategy(registry.StrategyOf[object](store)))
}

// NewBinding returns pods/binding on the store of pods.
func NewBinding(store *registry.Store) *BindingREST { return &BindingREST{store: store} }

// NewEviction returns pods/eviction on the store of pods.
func NewEviction(store *registry.Store) *EvictionREST { return &EvictionREST{store: store} }

// Fields returns what a field selector on pods may name, with pod's values.
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

// firstIP returns the pod's primary address, or "" while it has none.
func firstIP(status *corev1.PodStatus) string {
	if len(status.PodIPs) > 0 {
		return status.PodIPs[0].IP
	}
	return status.PodIP
}
