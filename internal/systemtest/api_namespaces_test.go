// Promise: a namespace has its default objects from the beginning, and takes all its content with it when it ends.

package systemtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"lanyard.dev/lanyardtest"
)

const rootCAMap = "kube-root-ca.crt"

// TestNewNamespacesHaveTheirDefaultObjects reads the default account and the root CA of many namespaces, each right after its
// creation was answered.
func TestNewNamespacesHaveTheirDefaultObjects(t *testing.T) {
	t.Parallel()
	total, batch := 1000, 20
	if testing.Short() {
		total = 200
	}
	client := lanyardtest.Start(t).Client()
	var making sync.WaitGroup
	for worker := range batch {
		making.Go(func() {
			for i := worker; i < total; i += batch {
				if err := createAndCheck(t.Context(), client, fmt.Sprintf("complete-%d", i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	making.Wait()
}

// createAndCheck creates a namespace and reads its default objects.
func createAndCheck(ctx context.Context, client kubernetes.Interface, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{}); err != nil {
		return fmt.Errorf("after the creation of namespace %s: %w", name, err)
	}
	config, err := client.CoreV1().ConfigMaps(name).Get(ctx, rootCAMap, metav1.GetOptions{})
	if err != nil || !strings.Contains(config.Data["ca.crt"], "BEGIN CERTIFICATE") {
		return fmt.Errorf("after the creation of namespace %s: config map %v: %w", name, config.Data, err)
	}
	return nil
}

func TestNamespaceDefaultObjectsAreRestored(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, core := a.Namespace(t), a.Client().CoreV1()
	only := func(name string) metav1.ListOptions {
		return metav1.ListOptions{FieldSelector: "metadata.name=" + name}
	}
	accounts, err := core.ServiceAccounts(namespace).Watch(t.Context(), only("default"))
	if err != nil {
		t.Fatal(err)
	}
	defer accounts.Stop()
	first := awaitEvent(t, accounts, func(e watch.Event) bool { return e.Type == watch.Added }).Object.(*corev1.ServiceAccount)
	if err := core.ServiceAccounts(namespace).Delete(t.Context(), "default", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	again := awaitEvent(t, accounts, func(e watch.Event) bool { return e.Type == watch.Added }).Object.(*corev1.ServiceAccount)
	if again.UID == first.UID {
		t.Error("the account was not created again")
	}

	configs, err := core.ConfigMaps(namespace).Watch(t.Context(), only(rootCAMap))
	if err != nil {
		t.Fatal(err)
	}
	defer configs.Stop()
	want := awaitEvent(t, configs, func(e watch.Event) bool { return e.Type == watch.Added }).Object.(*corev1.ConfigMap).Data["ca.crt"]
	restored := func(e watch.Event) bool {
		config, ok := e.Object.(*corev1.ConfigMap)
		return ok && e.Type != watch.Deleted && len(config.Data) == 1 && config.Data["ca.crt"] == want
	}
	for _, patch := range []string{`{"data":{"ca.crt":"other"}}`, `{"data":{"more":"x"}}`, `{"data":null}`} {
		if _, err := core.ConfigMaps(namespace).Patch(t.Context(), rootCAMap, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		awaitEvent(t, configs, restored)
	}
	if err := core.ConfigMaps(namespace).Delete(t.Context(), rootCAMap, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, configs, restored)
}

// TestNamespaceDeletionRemovesItsContent deletes a namespace with an object of every namespaced kind, and one secret with a finalizer.
func TestNamespaceDeletionRemovesItsContent(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, client := a.Namespace(t), a.Client()
	for _, k := range kinds {
		if k.namespaced {
			w := kindTest{kind: k, authority: a, namespace: namespace, client: dynamicFor(t, a.Config()).Resource(k.gvr()).Namespace(namespace)}
			w.create(t, "filled-"+strings.ReplaceAll(k.group, ".", "-")+k.resource)
		}
	}
	held := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.com/hold"}}}
	if _, err := client.CoreV1().Secrets(namespace).Create(t.Context(), held, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	watching := watchNamespace(t, client, namespace)
	if err := client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expectTerminating(t, client, namespace)
	awaitEvent(t, watching, func(e watch.Event) bool {
		ns := e.Object.(*corev1.Namespace)
		return slices.ContainsFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool {
			return c.Type == corev1.NamespaceContentRemaining && c.Status == corev1.ConditionTrue && strings.Contains(c.Message, "secrets")
		})
	})
	if _, err := client.CoreV1().Secrets(namespace).Patch(t.Context(), "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("change an object in a terminating namespace: %v", err)
	}
	awaitEvent(t, watching, func(e watch.Event) bool { return e.Type == watch.Deleted })
	if _, err := client.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get the namespace: %v, want not found", err)
	}
	expectEmpty(t, a, namespace)
}

func watchNamespace(t *testing.T, client kubernetes.Interface, name string) watch.Interface {
	t.Helper()
	watching, err := client.CoreV1().Namespaces().Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(watching.Stop)
	return watching
}

func expectTerminating(t *testing.T, client kubernetes.Interface, namespace string) {
	t.Helper()
	ns, err := client.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	if err != nil || ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionTimestamp == nil {
		t.Errorf("after the deletion: %+v, %v", ns, err)
	}
	_, err = client.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "late"}}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) ||
		!strings.Contains(err.Error(), "unable to create new content in namespace "+namespace+" because it is being terminated") {
		t.Errorf("create in a terminating namespace: %v, want Kubernetes' refusal", err)
	}
	if err := client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil && !apierrors.IsConflict(err) {
		t.Errorf("delete again: %v", err)
	}
}

// expectEmpty creates the namespace again and expects only the default objects in it.
func expectEmpty(t *testing.T, a *lanyardtest.Authority, namespace string) {
	t.Helper()
	again := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := a.Client().CoreV1().Namespaces().Create(t.Context(), again, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create the namespace again: %v", err)
	}
	for _, k := range kinds {
		if !k.namespaced {
			continue
		}
		list, err := dynamicFor(t, a.Config()).Resource(k.gvr()).Namespace(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range list.Items {
			if name := item.GetName(); name != "default" && name != rootCAMap {
				t.Errorf("%s %s outlived its namespace", k.fullName(), name)
			}
		}
	}
}

func TestSystemNamespaces(t *testing.T) {
	t.Parallel()
	a := authority(t)
	for name, deletable := range map[string]bool{"default": false, "kube-system": false, "kube-public": false, "kube-node-lease": true} {
		err := a.Client().CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{DryRun: dryRun})
		if deletable != (err == nil) || !deletable && !apierrors.IsForbidden(err) {
			t.Errorf("delete namespace %s: %v", name, err)
		}
	}
	_, err := a.Client().CoreV1().ConfigMaps("nowhere").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
	if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), `namespaces "nowhere" not found`) {
		t.Errorf("create in a namespace that does not exist: %v", err)
	}
}

// TestNamespaceFinalizers checks that a namespace is removed only when the finalizers of its spec are gone too, and that only
// namespaces/finalize changes them.
func TestNamespaceFinalizers(t *testing.T) {
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
