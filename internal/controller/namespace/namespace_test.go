package namespace_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/controller/namespace"
)

// cluster is real stores with a controller that is told of each change of a namespace, as by a feed.
type cluster struct {
	base       *storagetest.Storage
	namespaces *storagetest.Namespaces
	configMaps *registry.Store
	secrets    *registry.Store
	pods       *storagetest.Pods
	changes    chan *corev1.Namespace // closed when the namespace is gone
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// start runs the controller over the stores, and over what more says besides.
func start(t *testing.T, more map[schema.GroupResource]namespace.Content) *cluster {
	t.Helper()
	base := storagetest.Start(t)
	c := &cluster{base: base, changes: make(chan *corev1.Namespace, 100)}
	c.namespaces = base.Namespaces(base, nil)
	c.configMaps = base.Store(base, corev1.Resource("configmaps"))
	c.secrets = base.Store(base, corev1.Resource("secrets"))
	c.pods = base.Pods(base)
	contents := map[schema.GroupResource]namespace.Content{
		corev1.Resource("configmaps"): c.configMaps, corev1.Resource("secrets"): c.secrets, corev1.Resource("pods"): c.pods.Pod,
	}
	for resource, content := range more {
		contents[resource] = content
	}
	ends := namespace.New(c.namespaces.Namespace, c.namespaces.Finalize, c.namespaces.Status, contents)
	c.create(t, c.namespaces.Namespace, &corev1.Namespace{ObjectMeta: storagetest.Meta("", "shop")})
	c.follow(t, ends)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); ends.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

func (c *cluster) follow(t *testing.T, ends *namespace.Controller) {
	t.Helper()
	w := must[watch.Interface](t)(c.namespaces.Namespace.Watch(storagetest.In(t, ""), &internalversion.ListOptions{}))
	t.Cleanup(w.Stop)
	go func() {
		defer close(c.changes)
		for event := range w.ResultChan() {
			if event.Type == watch.Deleted {
				ends.Delete(event.Object)
				return
			}
			ends.Set(event.Object)
			if ns, ok := event.Object.(*corev1.Namespace); ok {
				c.changes <- ns
			}
		}
	}()
}

func (c *cluster) create(t *testing.T, store rest.Creater, obj interface {
	runtime.Object
	metav1.Object
}) {
	t.Helper()
	c.base.Scheme.Default(obj)
	_, err := store.Create(storagetest.In(t, obj.GetNamespace()), obj, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create %s: %v", obj.GetName(), err)
	}
}

func (c *cluster) end(t *testing.T) {
	t.Helper()
	_, gone, err := c.namespaces.Namespace.Delete(storagetest.In(t, ""), "shop", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{})
	if err != nil || gone {
		t.Fatalf("delete namespace: gone=%v, %v", gone, err)
	}
}

// await returns when the namespace is gone, or, with a kind, has that condition with a message that holds text.
func (c *cluster) await(t *testing.T, kind corev1.NamespaceConditionType, text string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case ns, open := <-c.changes:
			if !open && kind != "" {
				t.Fatalf("the namespace went before it had condition %s", kind)
			}
			if !open || kind != "" && hasCondition(ns, kind, text) {
				return
			}
		case <-late:
			t.Fatalf("the namespace was not in time gone or %s: %s", kind, text)
		}
	}
}

func hasCondition(ns *corev1.Namespace, kind corev1.NamespaceConditionType, text string) bool {
	return slices.ContainsFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool {
		return c.Type == kind && c.Status == corev1.ConditionTrue && strings.Contains(c.Message, text)
	})
}

func exists(t *testing.T, store rest.Getter, namespace, name string) bool {
	t.Helper()
	_, err := store.Get(storagetest.In(t, namespace), name, &metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

func TestNamespaceEnds(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	c.create(t, c.configMaps, &corev1.ConfigMap{ObjectMeta: storagetest.Meta("shop", "a")})
	c.create(t, c.configMaps, &corev1.ConfigMap{ObjectMeta: storagetest.Meta("shop", "b")})
	c.create(t, c.secrets, &corev1.Secret{ObjectMeta: storagetest.Meta("shop", "a")})
	c.create(t, c.configMaps, &corev1.ConfigMap{ObjectMeta: storagetest.Meta("other", "a")})
	c.end(t)
	c.await(t, "", "")
	for _, name := range []string{"a", "b"} {
		if exists(t, c.configMaps, "shop", name) {
			t.Errorf("config map %s outlives its namespace", name)
		}
	}
	if exists(t, c.secrets, "shop", "a") {
		t.Error("a secret outlives its namespace")
	}
	if !exists(t, c.configMaps, "other", "a") {
		t.Error("content of another namespace is gone too")
	}
}

// TestPodsGoFirst holds a pod in its grace period: what it runs with must still be there.
func TestPodsGoFirst(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	c.create(t, c.secrets, &corev1.Secret{ObjectMeta: storagetest.Meta("shop", "password")})
	c.create(t, c.pods.Pod, &corev1.Pod{ObjectMeta: storagetest.Meta("shop", "p"), Spec: corev1.PodSpec{
		NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i", TerminationMessagePolicy: "File", ImagePullPolicy: "Always"}},
	}})
	c.end(t)
	c.await(t, corev1.NamespaceContentRemaining, "1 pods")
	if !exists(t, c.secrets, "shop", "password") {
		t.Error("a secret went before the pod that may need it to end in order")
	}
	now := int64(0)
	_, _, err := c.pods.Pod.Delete(storagetest.In(t, "shop"), "p", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil {
		t.Fatal(err)
	}
	c.await(t, "", "")
	if exists(t, c.secrets, "shop", "password") {
		t.Error("a secret outlives its namespace")
	}
}

func TestFinalizersAreWaitedFor(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	held := &corev1.ConfigMap{ObjectMeta: storagetest.Meta("shop", "held")}
	held.Finalizers = []string{"example.com/wait"}
	c.create(t, c.configMaps, held)
	c.end(t)
	c.await(t, corev1.NamespaceContentRemaining, "Some resources are remaining: 1 configmaps")
	release := controller.Change(func(m *corev1.ConfigMap) { m.Finalizers = nil })
	_, _, err := c.configMaps.Update(storagetest.In(t, "shop"), "held", release,
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.await(t, "", "")
}

// stubborn is content that cannot be removed until it is mended.
type stubborn struct {
	rest.TableConvertor
	mu     sync.Mutex
	broken error
}

func (s *stubborn) NewList() runtime.Object { return &corev1.EventList{} }

func (s *stubborn) List(context.Context, *internalversion.ListOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := &corev1.EventList{}
	if s.broken != nil {
		list.Items = make([]corev1.Event, 3)
	}
	return list, nil
}

func (s *stubborn) DeleteCollection(context.Context, rest.ValidateObjectFunc, *metav1.DeleteOptions, *internalversion.ListOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return nil, s.broken
}

func (s *stubborn) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = nil
}

func TestFailureIsShownAndTriedAgain(t *testing.T) {
	t.Parallel()
	events := &stubborn{broken: errors.New("etcd is away")}
	c := start(t, map[schema.GroupResource]namespace.Content{corev1.Resource("events"): events})
	c.create(t, c.configMaps, &corev1.ConfigMap{ObjectMeta: storagetest.Meta("shop", "a")})
	c.end(t)
	c.await(t, corev1.NamespaceDeletionContentFailure, "remove events: etcd is away")
	if exists(t, c.configMaps, "shop", "a") {
		t.Error("one resource that cannot be removed keeps the others")
	}
	events.mend()
	c.await(t, "", "")
}

func TestActiveNamespacesAreLeftAlone(t *testing.T) {
	t.Parallel()
	events := &stubborn{broken: errors.New("asked to remove from an active namespace")}
	c := start(t, map[schema.GroupResource]namespace.Content{corev1.Resource("events"): events})
	c.create(t, c.namespaces.Namespace, &corev1.Namespace{ObjectMeta: storagetest.Meta("", "office")})
	c.create(t, c.configMaps, &corev1.ConfigMap{ObjectMeta: storagetest.Meta("office", "a")})
	c.end(t)
	c.await(t, corev1.NamespaceDeletionContentFailure, "")
	if !exists(t, c.configMaps, "office", "a") || !exists(t, c.namespaces.Namespace, "", "office") {
		t.Error("an active namespace lost content")
	}
}
