// Promise: a pod without an agent is bound, changed and deleted as in Kubernetes.

package systemtest

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"lanyard.dev/lanyardtest"
)

func TestPodsAreDeletedGracefully(t *testing.T) {
	t.Parallel()
	a := authority(t)
	for name, tt := range map[string]struct {
		node    string
		options metav1.DeleteOptions
		stays   bool
		grace   int64
	}{
		"not on a node":                {"", metav1.DeleteOptions{}, false, 0},
		"on a node":                    {"n", metav1.DeleteOptions{}, true, 30},
		"with a grace period":          {"n", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](5)}, true, 5},
		"with a grace period of 0":     {"n", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, false, 0},
		"with a negative grace period": {"n", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](-1)}, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pods := a.Client().CoreV1().Pods(a.Namespace(t))
			if _, err := pods.Create(t.Context(), podOn(tt.node), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := pods.Delete(t.Context(), "p", tt.options); err != nil {
				t.Fatal(err)
			}
			pod, err := pods.Get(t.Context(), "p", metav1.GetOptions{})
			if !tt.stays {
				if !apierrors.IsNotFound(err) {
					t.Errorf("get: %v, want not found", err)
				}
				return
			}
			if err != nil || pod.DeletionTimestamp == nil || pod.DeletionGracePeriodSeconds == nil || *pod.DeletionGracePeriodSeconds != tt.grace {
				t.Fatalf("after the deletion: %+v, %v", pod.ObjectMeta, err)
			}
			if err := pods.Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
				t.Errorf("delete by force: %v", err)
			}
			if _, err := pods.Get(t.Context(), "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("get: %v, want not found", err)
			}
		})
	}
}

func TestPodBindingAndStatus(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	pods := a.Client().CoreV1().Pods(namespace)
	if _, err := pods.Create(t.Context(), podOn(""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := pods.Bind(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := pods.Bind(t.Context(), binding, metav1.CreateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("bind again: %v, want a conflict", err)
	}
	pod, err := pods.Get(t.Context(), "p", metav1.GetOptions{})
	if err != nil || pod.Spec.NodeName != "n" {
		t.Fatalf("after the binding: %v, %v", pod.Spec.NodeName, err)
	}
	pod.Status.Phase, pod.Spec.NodeName = corev1.PodRunning, "other"
	updated, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
	if err != nil || updated.Status.Phase != corev1.PodRunning || updated.Spec.NodeName != "n" {
		t.Errorf("status: %+v, %v", updated, err)
	}
	for patch, ok := range map[string]bool{
		`{"spec":{"serviceAccountName":"other"}}`: false, `{"spec":{"nodeName":"other"}}`: false,
		`{"spec":{"hostNetwork":true}}`: false, `{"spec":{"activeDeadlineSeconds":5}}`: true,
		`{"status":{"phase":"Failed"}}`: true,
	} {
		got, err := pods.Patch(t.Context(), "p", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		if ok != (err == nil) || !ok && !apierrors.IsInvalid(err) || ok && got.Status.Phase != corev1.PodRunning {
			t.Errorf("patch %s: %v", patch, err)
		}
	}
	if _, err := pods.Get(t.Context(), "p", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

func TestPodsAreBoundToReadyNodes(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace, core := a.Namespace(t), a.Client().CoreV1()
	first := createPod(t, a, namespace, simplePod("first"))
	eventually(t, "an event with the reason for not scheduling", func(ctx context.Context) bool {
		events, err := core.Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedScheduling,involvedObject.uid=" + string(first.UID)})
		return err == nil && len(events.Items) == 1
	})
	readyNode(t, a, "one")
	readyNode(t, a, "two")
	pinned := simplePod("pinned")
	pinned.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "two"}
	createPod(t, a, namespace, pinned)
	const many = 40
	for i := range many {
		createPod(t, a, namespace, simplePod(fmt.Sprint("p", i)))
	}
	perNode := map[string]int{}
	eventually(t, "all pods are bound", func(ctx context.Context) bool {
		pods, err := core.Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false
		}
		clear(perNode)
		for _, p := range pods.Items {
			perNode[p.Spec.NodeName]++
			if p.Name == "pinned" && p.Spec.NodeName == "one" {
				t.Error("a pod that selects node two is bound to one")
			}
		}
		return perNode[""] == 0
	})
	if perNode["one"] != many/2+1 || perNode["two"] != many/2+1 {
		t.Errorf("pods by node: %v", perNode)
	}

	// No pod is bound to a cordoned node.
	if _, err := core.Nodes().Patch(t.Context(), "one", "application/merge-patch+json", []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	late := createPod(t, a, namespace, simplePod("late"))
	eventually(t, "the last pod is bound", func(ctx context.Context) bool {
		p, err := core.Pods(namespace).Get(ctx, late.Name, metav1.GetOptions{})
		return err == nil && p.Spec.NodeName == "two"
	})
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "late"}}
	if err := core.Pods(namespace).EvictV1(t.Context(), eviction); err != nil {
		t.Fatal(err)
	}
	p, err := core.Pods(namespace).Get(t.Context(), "late", metav1.GetOptions{})
	if err != nil || p.DeletionTimestamp == nil {
		t.Errorf("an evicted pod has the deletion timestamp %v, %v; want a graceful deletion", p.DeletionTimestamp, err)
	}
}
