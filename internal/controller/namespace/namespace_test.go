package namespace_test

import (
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry"
	namespaceregistry "lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller/namespace"
	"lanyard.dev/internal/rbac/bootstrap"
)

func TestMain(m *testing.M) { os.Exit(controllertest.TestRoles(m, bootstrap.NamespaceController)) }

// cluster is a cluster with the namespace "shop" and a controller that runs.
type cluster struct {
	*controllertest.Cluster
	namespaces                *namespaceregistry.REST
	configMaps, secrets, pods *registry.Store
	changes                   chan *corev1.Namespace // closed when the namespace is gone
}

// start runs a controller whose client calls the wrappers.
func start(t *testing.T, wrappers ...func(http.RoundTripper) http.RoundTripper) *cluster {
	t.Helper()
	namespaces, kinds := corev1.Resource("namespaces"), []string{"configmaps", "secrets", "pods", "events"}
	resources, contents := []schema.GroupResource{namespaces}, []schema.GroupVersionResource{}
	for _, kind := range kinds {
		resources, contents = append(resources, corev1.Resource(kind)), append(contents, corev1.SchemeGroupVersion.WithResource(kind))
	}
	c := &cluster{Cluster: controllertest.NewCluster(t, storagetest.Start(t), controllertest.Config{}, resources...), changes: make(chan *corev1.Namespace, 100)}
	c.namespaces, c.configMaps, c.secrets, c.pods = c.Namespaces(), c.Store(resources[1]), c.Store(resources[2]), c.Store(resources[3])
	config := c.ClientConfig(bootstrap.NamespaceController, wrappers...)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ends := namespace.New(client, objects, contents)
	c.Feed(namespaces).Listen(ends)
	c.Feed(namespaces).Listen(&follower{changes: c.changes})
	c.Run(t, ends)
	c.create(t, c.namespaces, &corev1.Namespace{ObjectMeta: storagetest.Meta("", "shop")})
	return c
}

// follower passes on the changes of the namespace "shop".
type follower struct{ changes chan *corev1.Namespace }

// Set implements mirror.Listener.
func (f *follower) Set(obj runtime.Object) {
	if ns, ok := obj.(*corev1.Namespace); ok && ns.Name == "shop" {
		f.changes <- ns.DeepCopy()
	}
}

// Delete implements mirror.Listener.
func (f *follower) Delete(runtime.Object) { close(f.changes) }

func (c *cluster) create(t *testing.T, store rest.Creater, obj interface {
	runtime.Object
	metav1.Object
}) {
	t.Helper()
	c.Scheme.Default(obj)
	_, err := store.Create(storagetest.In(t, obj.GetNamespace()), obj, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create %s: %v", obj.GetName(), err)
	}
}

func (c *cluster) deleteShop(t *testing.T) {
	t.Helper()
	_, gone, err := c.namespaces.Delete(storagetest.In(t, ""), "shop", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{})
	if err != nil || gone {
		t.Fatalf("delete namespace: gone=%v, %v", gone, err)
	}
}

// await returns when the namespace is gone or, if kind is given, has that condition with a message that contains text.
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
			t.Fatalf("the namespace was not gone, or not %s: %s, in time", kind, text)
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
	c := start(t)
	c.create(t, c.configMaps, &corev1.ConfigMap{ObjectMeta: storagetest.Meta("shop", "a")})
	c.create(t, c.configMaps, &corev1.ConfigMap{ObjectMeta: storagetest.Meta("shop", "b")})
	c.create(t, c.secrets, &corev1.Secret{ObjectMeta: storagetest.Meta("shop", "a")})
	c.create(t, c.configMaps, &corev1.ConfigMap{ObjectMeta: storagetest.Meta("other", "a")})
	c.deleteShop(t)
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

// TestPodsGoFirst holds a pod in its grace period: the objects that it uses must still exist.
func TestPodsGoFirst(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.create(t, c.secrets, &corev1.Secret{ObjectMeta: storagetest.Meta("shop", "password")})
	c.create(t, c.pods, &corev1.Pod{ObjectMeta: storagetest.Meta("shop", "p"), Spec: corev1.PodSpec{
		NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i", TerminationMessagePolicy: "File", ImagePullPolicy: "Always"}},
	}})
	c.deleteShop(t)
	c.await(t, corev1.NamespaceContentRemaining, "1 pods")
	if !exists(t, c.secrets, "shop", "password") {
		t.Error("a secret went before the pod that may need it to end in order")
	}
	now := int64(0)
	_, _, err := c.pods.Delete(storagetest.In(t, "shop"), "p", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{GracePeriodSeconds: &now})
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
	c := start(t)
	held := &corev1.ConfigMap{ObjectMeta: storagetest.Meta("shop", "held")}
	held.Finalizers = []string{"example.com/wait"}
	c.create(t, c.configMaps, held)
	c.deleteShop(t)
	c.await(t, corev1.NamespaceContentRemaining, "Some resources are remaining: 1 configmaps")
	release := controllertest.Change(func(m *corev1.ConfigMap) { m.Finalizers = nil })
	_, _, err := c.configMaps.Update(storagetest.In(t, "shop"), "held", release,
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.await(t, "", "")
}

// stubborn fails the deletion of events until it is mended.
type stubborn struct{ mended atomic.Bool }

func (s *stubborn) wrap() func(http.RoundTripper) http.RoundTripper {
	return controllertest.Before(http.MethodDelete, func(path string) error {
		if !s.mended.Load() && strings.HasSuffix(path, "/events") {
			return errors.New("etcd is away")
		}
		return nil
	})
}

func TestFailureIsShownAndTriedAgain(t *testing.T) {
	t.Parallel()
	events := &stubborn{}
	c := start(t, events.wrap())
	c.create(t, c.configMaps, &corev1.ConfigMap{ObjectMeta: storagetest.Meta("shop", "a")})
	c.deleteShop(t)
	c.await(t, corev1.NamespaceDeletionContentFailure, "remove events: ")
	if exists(t, c.configMaps, "shop", "a") {
		t.Error("one resource that cannot be removed keeps the others")
	}
	events.mended.Store(true)
	c.await(t, "", "")
}

func TestActiveNamespacesAreLeftAlone(t *testing.T) {
	t.Parallel()
	events := &stubborn{}
	c := start(t, events.wrap())
	c.create(t, c.namespaces, &corev1.Namespace{ObjectMeta: storagetest.Meta("", "office")})
	c.create(t, c.configMaps, &corev1.ConfigMap{ObjectMeta: storagetest.Meta("office", "a")})
	c.deleteShop(t)
	c.await(t, corev1.NamespaceDeletionContentFailure, "")
	if !exists(t, c.configMaps, "office", "a") || !exists(t, c.namespaces, "", "office") {
		t.Error("an active namespace lost content")
	}
}
