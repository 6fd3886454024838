package namespace_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/registry/storagetest"
)

// storage is a store of namespaces that records the calls of addDefaults, which fails for the namespace "bare".
type storage struct {
	*storagetest.Namespaces
	base      *storagetest.Storage
	completed []string
}

func newStorage(t *testing.T) *storage {
	t.Helper()
	s := &storage{base: storagetest.Start(t)}
	s.Namespaces = s.base.Namespaces(s.base, func(_ context.Context, name string) error {
		s.completed = append(s.completed, name)
		if name == "bare" {
			return errors.New("etcd is away")
		}
		return nil
	})
	return s
}

func (s *storage) create(t *testing.T, ns *corev1.Namespace, dryRun ...string) (*corev1.Namespace, error) {
	t.Helper()
	s.base.Scheme.Default(ns)
	made, err := s.Namespace.Create(storagetest.In(t, ""), ns, rest.ValidateAllObjectFunc, &metav1.CreateOptions{DryRun: dryRun})
	if made == nil {
		return nil, err
	}
	return made.(*corev1.Namespace), err
}

// named creates a namespace. The functions change it before it is sent.
func (s *storage) named(t *testing.T, name string, mutate ...func(*corev1.Namespace)) *corev1.Namespace {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: storagetest.Meta("", name)}
	for _, m := range mutate {
		m(ns)
	}
	made, err := s.create(t, ns)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (s *storage) delete(t *testing.T, name string, options *metav1.DeleteOptions) (*corev1.Namespace, bool, error) {
	t.Helper()
	out, gone, err := s.Namespace.Delete(storagetest.In(t, ""), name, rest.ValidateAllObjectFunc, options)
	ns, _ := out.(*corev1.Namespace)
	return ns, gone, err
}

// get returns the namespace, or nil if it does not exist.
func (s *storage) get(t *testing.T, name string) *corev1.Namespace {
	t.Helper()
	found, err := s.Namespace.Get(storagetest.In(t, ""), name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return found.(*corev1.Namespace)
}

func update(t *testing.T, to rest.Updater, name string, mutate func(*corev1.Namespace)) error {
	t.Helper()
	info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		ns := old.DeepCopyObject().(*corev1.Namespace)
		mutate(ns)
		return ns, nil
	})
	_, _, err := to.Update(storagetest.In(t, ""), name, info, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	return err
}

func without(finalizers bool) func(*corev1.Namespace) {
	return func(ns *corev1.Namespace) {
		ns.Spec.Finalizers = nil
		if finalizers {
			ns.Finalizers = nil
		}
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	made := s.named(t, "shop")
	if made.Status.Phase != corev1.NamespaceActive || !slices.Equal(made.Spec.Finalizers, []corev1.FinalizerName{"kubernetes"}) ||
		made.Labels["kubernetes.io/metadata.name"] != "shop" {
		t.Errorf("got %+v", made)
	}
	generated := s.named(t, "", func(ns *corev1.Namespace) { ns.GenerateName = "team-" })
	if generated.Labels["kubernetes.io/metadata.name"] != generated.Name {
		t.Errorf("%s is labelled %q", generated.Name, generated.Labels)
	}
	if !slices.Equal(s.completed, []string{"shop", generated.Name}) {
		t.Errorf("addDefaults was called for %q before the answer", s.completed)
	}
	if _, err := s.create(t, &corev1.Namespace{ObjectMeta: storagetest.Meta("", "shop")}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second creation: %v", err)
	}
	if _, err := s.create(t, &corev1.Namespace{ObjectMeta: storagetest.Meta("", "try")}, metav1.DryRunAll); err != nil || s.get(t, "try") != nil {
		t.Errorf("dry run: %v", err)
	}
	_, err := s.create(t, &corev1.Namespace{ObjectMeta: storagetest.Meta("", "bare")})
	if err == nil || !strings.Contains(err.Error(), `namespace "bare" was created, but not yet its default service account and root CA: etcd is away`) {
		t.Errorf("after addDefaults failed: %v", err)
	}
	if s.get(t, "bare") == nil {
		t.Error("the namespace does not exist after addDefaults failed")
	}
	if !slices.Equal(s.completed, []string{"shop", generated.Name, "bare"}) {
		t.Errorf("completed %q", s.completed)
	}
}

func TestDeleteMarksAndWaits(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	s.named(t, "shop")
	marked, gone, err := s.delete(t, "shop", &metav1.DeleteOptions{})
	if err != nil || gone {
		t.Fatalf("gone=%v, %v", gone, err)
	}
	if marked.Status.Phase != corev1.NamespaceTerminating || marked.DeletionTimestamp == nil || len(marked.Spec.Finalizers) != 1 {
		t.Errorf("got %+v", marked)
	}
	again, gone, err := s.delete(t, "shop", &metav1.DeleteOptions{})
	if err != nil || gone || !again.DeletionTimestamp.Equal(marked.DeletionTimestamp) || again.ResourceVersion != marked.ResourceVersion {
		t.Errorf("second deletion: %+v, gone=%v, %v", again, gone, err)
	}
	if err := update(t, s.Namespace, "shop", without(true)); err != nil {
		t.Fatal(err)
	}
	if ns := s.get(t, "shop"); ns == nil || len(ns.Spec.Finalizers) != 1 {
		t.Fatalf("an update took away what only finalize may: %+v", ns)
	}
	if err := update(t, s.Finalize, "shop", without(false)); err != nil {
		t.Fatal(err)
	}
	if ns := s.get(t, "shop"); ns != nil {
		t.Errorf("after finalize: %+v", ns)
	}
	if _, _, err := s.delete(t, "shop", &metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("delete of a removed namespace: %v", err)
	}
}

func TestFinalizersOfMetadataHoldToo(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	s.named(t, "shop", func(ns *corev1.Namespace) { ns.Finalizers = []string{"example.com/wait"} })
	if _, _, err := s.delete(t, "shop", &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := update(t, s.Finalize, "shop", without(false)); err != nil {
		t.Fatal(err)
	}
	if s.get(t, "shop") == nil {
		t.Fatal("removed in spite of a finalizer")
	}
	if _, gone, err := s.delete(t, "shop", &metav1.DeleteOptions{}); err != nil || gone {
		t.Fatalf("deleting again: gone=%v, %v", gone, err)
	}
	if err := update(t, s.Namespace, "shop", without(true)); err != nil {
		t.Fatal(err)
	}
	if s.get(t, "shop") != nil {
		t.Error("kept without any finalizer")
	}
}

func TestFinalizeDoesNotDelete(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	s.named(t, "shop")
	if err := update(t, s.Finalize, "shop", without(false)); err != nil {
		t.Fatal(err)
	}
	if s.get(t, "shop") == nil {
		t.Fatal("an active namespace went by finalize")
	}
	if _, gone, err := s.delete(t, "shop", &metav1.DeleteOptions{}); err != nil || !gone || s.get(t, "shop") != nil {
		t.Errorf("without finalizers: gone=%v, %v", gone, err)
	}
}

func TestDeleteConditions(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	made := s.named(t, "shop")
	before := func(uid, version string) *metav1.DeleteOptions {
		p := &metav1.Preconditions{}
		if uid != "" {
			p.UID = ptr.To(types.UID(uid))
		}
		if version != "" {
			p.ResourceVersion = &version
		}
		return &metav1.DeleteOptions{Preconditions: p}
	}
	for name, options := range map[string]*metav1.DeleteOptions{"UID": before("other", ""), "version": before("", "1")} {
		if _, _, err := s.delete(t, "shop", options); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "precondition failed") {
			t.Errorf("wrong %s: %v", name, err)
		}
	}
	refuse := func(context.Context, runtime.Object) error { return errors.New("admission says no") }
	if _, _, err := s.Namespace.Delete(storagetest.In(t, ""), "shop", refuse, &metav1.DeleteOptions{}); err == nil || err.Error() != "admission says no" {
		t.Errorf("refused by admission: %v", err)
	}
	shown, gone, err := s.delete(t, "shop", &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || gone || shown.Status.Phase != corev1.NamespaceTerminating {
		t.Errorf("dry run shows %+v, gone=%v, %v", shown, gone, err)
	}
	if ns := s.get(t, "shop"); ns == nil || ns.DeletionTimestamp != nil || ns.ResourceVersion != made.ResourceVersion {
		t.Fatalf("what was refused or tried had an effect: %+v", ns)
	}
	if _, _, err := s.delete(t, "shop", before(string(made.UID), made.ResourceVersion)); err != nil {
		t.Errorf("conditions that hold: %v", err)
	}
	if ns := s.get(t, "shop"); ns.DeletionTimestamp == nil {
		t.Error("the namespace is not being deleted")
	}
}

// TestFieldsThatEachPartMayChange sends the same update to the resource and to each of its subresources.
func TestFieldsThatEachPartMayChange(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	change := func(ns *corev1.Namespace) {
		ns.Labels["team"] = "a"
		ns.Spec.Finalizers = append(ns.Spec.Finalizers, "example.com/x")
		ns.Status.Conditions = []corev1.NamespaceCondition{{Type: "Mine", Status: corev1.ConditionTrue}}
	}
	for name, test := range map[string]struct {
		to                   rest.Updater
		finalizer, condition bool
	}{
		"resource": {s.Namespace, false, false}, "status": {s.Status, false, true}, "finalize": {s.Finalize, true, false},
	} {
		s.named(t, name)
		if err := update(t, test.to, name, change); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ns := s.get(t, name)
		if got := len(ns.Spec.Finalizers) == 2; got != test.finalizer {
			t.Errorf("%s: finalizer added=%v", name, got)
		}
		if got := len(ns.Status.Conditions) == 1; got != test.condition {
			t.Errorf("%s: condition added=%v", name, got)
		}
	}
	if err := update(t, s.Status, "nowhere", change); !apierrors.IsNotFound(err) {
		t.Errorf("status of nothing: %v", err)
	}
	forge := func(ns *corev1.Namespace) { ns.Labels["kubernetes.io/metadata.name"] = "other" }
	s.named(t, "forged")
	_ = update(t, s.Namespace, "forged", func(ns *corev1.Namespace) { forge(ns); s.base.Scheme.Default(ns) })
	if got := s.get(t, "forged").Labels["kubernetes.io/metadata.name"]; got != "forged" {
		t.Errorf("a client's object, defaulted as the server does, is labelled %q", got)
	}
}

func TestStorageReadiness(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	var ready rest.StorageWithReadiness = s.Namespace
	if err := ready.ReadinessCheck(); err != nil {
		t.Errorf("got %v", err)
	}
	if _, ok := rest.Storage(s.Namespace).(rest.CollectionDeleter); ok {
		t.Error("all namespaces can be deleted at once")
	}
}
