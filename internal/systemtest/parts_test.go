package systemtest

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// TestNodeParts: a node's spec and status are written apart, each through its own path.
func TestNodeParts(t *testing.T) {
	t.Parallel()
	a := authority(t)
	nodes, name := a.Client().CoreV1().Nodes(), a.Namespace(t)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{ProviderID: "x://1"}}
	if _, err := nodes.Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"spec":{"unschedulable":true},"status":{"phase":"Running","nodeInfo":{"kubeletVersion":"v1"}}}`)
	for _, parts := range [][]string{nil, {"status"}} {
		got, err := nodes.Patch(t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, parts...)
		if err != nil {
			t.Fatal(err)
		}
		if status := len(parts) > 0; got.Spec.Unschedulable != true || (got.Status.NodeInfo.KubeletVersion == "v1") != status {
			t.Errorf("patch of %v: %+v", parts, got)
		}
	}
	undo := []byte(`{"spec":{"unschedulable":false}}`)
	if got, err := nodes.Patch(t.Context(), name, types.StrategicMergePatchType, undo, metav1.PatchOptions{}, "status"); err != nil || !got.Spec.Unschedulable {
		t.Errorf("spec through status: %+v, %v", got.Spec, err)
	}
}

// TestNamespaceParts: a namespace goes only when its own finalizers are taken off too, and those through one path only.
func TestNamespaceParts(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespaces, name := a.Client().CoreV1().Namespaces(), a.Namespace(t)
	ns, err := namespaces.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil || !slices.Equal(ns.Spec.Finalizers, []corev1.FinalizerName{corev1.FinalizerKubernetes}) || ns.Labels[corev1.LabelMetadataName] != name {
		t.Fatalf("a new namespace: %+v, %v", ns, err)
	}
	ns.Spec.Finalizers = nil
	if got, err := namespaces.Update(t.Context(), ns, metav1.UpdateOptions{}); err != nil || len(got.Spec.Finalizers) != 1 {
		t.Errorf("update without finalizers: %+v, %v", got.Spec, err)
	}
	ns.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes, "example.com/own"}
	ns.ResourceVersion = ""
	if got, err := namespaces.Finalize(t.Context(), ns, metav1.UpdateOptions{}); err != nil || len(got.Spec.Finalizers) != 2 {
		t.Fatalf("finalize: %+v, %v", got, err)
	}
	watching := watchNamespace(t, a.Client(), name)
	if err := namespaces.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	emptied := func(e watch.Event) bool {
		return e.Type == watch.Modified && slices.Equal(e.Object.(*corev1.Namespace).Spec.Finalizers, []corev1.FinalizerName{"example.com/own"})
	}
	held := awaitEvent(t, watching, emptied).Object.(*corev1.Namespace)
	held.Spec.Finalizers = nil
	if _, err := namespaces.Finalize(t.Context(), held, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, watching, func(e watch.Event) bool { return e.Type == watch.Deleted })
	if _, err := namespaces.Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get: %v, want not found", err)
	}
}
