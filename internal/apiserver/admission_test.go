package apiserver

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestNamespacesAreRemembered checks that a namespace is read from memory from its delivery to its deletion, as delivered last.
func TestNamespacesAreRemembered(t *testing.T) {
	t.Parallel()
	errStorage := errors.New("read from storage")
	n := &namespaces{known: map[string]*corev1.Namespace{}, read: func(context.Context, string) (*corev1.Namespace, error) { return nil, errStorage }}
	expect := func(phase corev1.NamespacePhase, err error) {
		t.Helper()
		got, gotErr := n.find(t.Context(), "shop")
		if gotErr != err || err == nil && got.Status.Phase != phase {
			t.Errorf("got %v, %v, want %q, %v", got, gotErr, phase, err)
		}
	}
	delivered := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	delivered.Status.Phase = corev1.NamespaceActive
	expect("", errStorage)
	n.Set(delivered)
	expect(corev1.NamespaceActive, nil)
	delivered.Status.Phase = corev1.NamespaceTerminating
	expect(corev1.NamespaceActive, nil) // the object belongs to the request that wrote it
	n.Set(delivered)
	expect(corev1.NamespaceTerminating, nil)
	n.Delete(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	expect("", errStorage)
}
