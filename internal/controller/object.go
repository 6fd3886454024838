package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// Change reads an object, applies change to it and writes it. If another client wrote it in between, Change starts
// again. change reports whether it changed anything; if it did not, nothing is written. get and update are methods of a
// typed client. Change returns the object as it is stored.
func Change[T any](ctx context.Context, name string, get func(context.Context, string, metav1.GetOptions) (T, error),
	update func(context.Context, T, metav1.UpdateOptions) (T, error), change func(T) bool,
) (stored T, err error) {
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		if stored, err = get(ctx, name, metav1.GetOptions{}); err != nil || !change(stored) {
			return err
		}
		stored, err = update(ctx, stored, metav1.UpdateOptions{})
		return err
	})
	return stored, err
}

// IfUnchanged returns options that delete an object as it was read: a newer version of it, or a newer object of its
// name, stays.
func IfUnchanged(obj metav1.Object) metav1.DeleteOptions {
	uid, version := obj.GetUID(), obj.GetResourceVersion()
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}
}

// KeyOf returns the namespace and name of an object; false if it has none.
func KeyOf(obj runtime.Object) (types.NamespacedName, bool) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, true
}

// SetPodCondition puts a condition into status and reports whether that changed more than times. A condition whose
// status stays the same keeps the time of its last transition.
func SetPodCondition(status *corev1.PodStatus, want corev1.PodCondition) bool {
	for i := range status.Conditions {
		is := &status.Conditions[i]
		if is.Type != want.Type {
			continue
		}
		if is.Status == want.Status {
			want.LastTransitionTime = is.LastTransitionTime
			if is.Reason == want.Reason && is.Message == want.Message {
				return false
			}
		}
		*is = want
		return true
	}
	status.Conditions = append(status.Conditions, want)
	return true
}

// Finished reports whether a pod has ended for good.
func Finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// NodeReady returns the status of a node's condition Ready, or "" if it has none.
func NodeReady(node *corev1.Node) corev1.ConditionStatus {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			return node.Status.Conditions[i].Status
		}
	}
	return ""
}
