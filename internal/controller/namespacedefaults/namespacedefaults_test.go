package namespacedefaults_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller/namespacedefaults"
	"lanyard.dev/internal/rbac/bootstrap"
)

const (
	certificate      = "-----BEGIN CERTIFICATE-----\n"
	nodesCertificate = certificate + "of nodes\n"
)

func TestMain(m *testing.M) {
	os.Exit(controllertest.TestRoles(m, bootstrap.RootCAPublisher, bootstrap.ServiceAccountController))
}

// cluster is a cluster with a controller.
type cluster struct {
	*controllertest.Cluster
	namespaces           *namespace.REST
	accounts, configMaps *registry.Store
	controller           *namespacedefaults.Controller
}

// start returns a cluster whose controller runs.
func start(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	c.Run(t, c.controller)
	return c
}

// idle returns a cluster whose controller is only called, by the creation of namespaces and by tests.
func idle(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	c.Run(t)
	return c
}

func newCluster(t *testing.T, wrappers ...func(http.RoundTripper) http.RoundTripper) *cluster {
	t.Helper()
	c := &cluster{}
	namespaces, accounts, configMaps := corev1.Resource("namespaces"), corev1.Resource("serviceaccounts"), corev1.Resource("configmaps")
	ensure := func(ctx context.Context, name string) error { return c.controller.Ensure(ctx, name) }
	c.Cluster = controllertest.NewCluster(t, storagetest.Start(t), controllertest.Config{AddDefaults: ensure}, namespaces, accounts, configMaps)
	c.namespaces, c.accounts, c.configMaps = c.Namespaces(), c.Store(accounts), c.Store(configMaps)
	c.controller = namespacedefaults.New(namespacedefaults.Config{
		Accounts: c.Client(bootstrap.ServiceAccountController, wrappers...), ConfigMaps: c.Client(bootstrap.RootCAPublisher, wrappers...),
		RootCA: []byte(certificate), NodesCA: []byte(nodesCertificate),
	})
	c.Feed(accounts).Listen(c.controller.Accounts())
	c.Feed(configMaps).Listen(c.controller.RootCAs())
	c.Feed(configMaps).Listen(c.controller.NodesCA())
	c.Feed(namespaces).Listen(c.controller.Namespaces())
	return c
}

func (c *cluster) namespace(t *testing.T, name string) {
	t.Helper()
	_, err := c.namespaces.Create(storagetest.In(t, ""), &corev1.Namespace{ObjectMeta: storagetest.Meta("", name)},
		rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// await watches a store until an object satisfies want.
func await(t *testing.T, store *registry.Store, in string, want func(watch.Event) bool, change func()) {
	t.Helper()
	ctx := storagetest.In(t, in)
	list, err := store.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	version := list.(interface{ GetResourceVersion() string }).GetResourceVersion()
	w, err := store.Watch(ctx, &internalversion.ListOptions{ResourceVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	change()
	late := time.After(20 * time.Second)
	for {
		select {
		case event, open := <-w.ResultChan():
			if !open {
				t.Fatal("watch ended")
			}
			if shared, ok := event.Object.(runtime.CacheableObject); ok {
				event.Object = shared.GetObject() // as the watch cache hands it out
			}
			if want(event) {
				return
			}
		case <-late:
			t.Fatal("not restored in time")
		}
	}
}

func remove(t *testing.T, store *registry.Store, in, name string) {
	t.Helper()
	// The controller may have removed it from an ending namespace already.
	_, _, err := store.Delete(storagetest.In(t, in), name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

func isRootCA(e watch.Event) bool {
	m, ok := e.Object.(*corev1.ConfigMap)
	return ok && e.Type != watch.Deleted && m.Name == "kube-root-ca.crt" && len(m.Data) == 1 && m.Data["ca.crt"] == certificate &&
		len(m.BinaryData) == 0 && m.Annotations["kubernetes.io/description"] != ""
}

func TestNewNamespaceHasItsObjects(t *testing.T) {
	t.Parallel()
	c := start(t)
	for _, name := range []string{"shop", "office"} {
		c.namespace(t, name)
		if _, err := c.accounts.Get(storagetest.In(t, name), "default", &metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
		found, err := c.configMaps.Get(storagetest.In(t, name), "kube-root-ca.crt", &metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !isRootCA(watch.Event{Object: found}) {
			t.Errorf("got %+v", found)
		}
	}
	if err := c.controller.Ensure(t.Context(), "shop"); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestRestored(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.namespace(t, "shop")
	change := func(mutate func(*corev1.ConfigMap)) func() {
		return func() {
			_, _, err := c.configMaps.Update(storagetest.In(t, "shop"), "kube-root-ca.crt", controllertest.Change(mutate),
				rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	isDefault := func(e watch.Event) bool {
		a, ok := e.Object.(*corev1.ServiceAccount)
		return ok && e.Type == watch.Added && a.Name == "default"
	}
	await(t, c.accounts, "shop", isDefault, func() { remove(t, c.accounts, "shop", "default") })
	added := func(e watch.Event) bool { return e.Type == watch.Added && isRootCA(e) }
	await(t, c.configMaps, "shop", added, func() { remove(t, c.configMaps, "shop", "kube-root-ca.crt") })
	for name, mutate := range map[string]func(*corev1.ConfigMap){
		"other certificate": func(m *corev1.ConfigMap) { m.Data["ca.crt"] = "forged" },
		"more keys":         func(m *corev1.ConfigMap) { m.Data["more"] = "x" },
		"as bytes":          func(m *corev1.ConfigMap) { m.Data, m.BinaryData = nil, map[string][]byte{"ca.crt": []byte("forged")} },
		"no description":    func(m *corev1.ConfigMap) { m.Annotations = nil },
	} {
		t.Run(name, func(t *testing.T) {
			await(t, c.configMaps, "shop", isRootCA, change(mutate))
		})
	}
}

// TestNodesCA checks that the CA of nodes is in kube-public, and in no place where a client could take it for the CA of the API
// server.
func TestNodesCA(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.namespace(t, metav1.NamespacePublic)
	c.namespace(t, "shop")
	isNodesCA := func(e watch.Event) bool {
		m, ok := e.Object.(*corev1.ConfigMap)
		return ok && e.Type != watch.Deleted && m.Name == "kubelet-serving-ca" && len(m.Data) == 1 && m.Data["ca.crt"] == nodesCertificate
	}
	found, err := c.configMaps.Get(storagetest.In(t, metav1.NamespacePublic), "kubelet-serving-ca", &metav1.GetOptions{})
	if err != nil || !isNodesCA(watch.Event{Object: found}) {
		t.Fatalf("got %+v, %v", found, err)
	}
	if _, err := c.configMaps.Get(storagetest.In(t, "shop"), "kubelet-serving-ca", &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("another namespace: %v", err)
	}
	root, err := c.configMaps.Get(storagetest.In(t, metav1.NamespacePublic), "kube-root-ca.crt", &metav1.GetOptions{})
	if err != nil || !isRootCA(watch.Event{Object: root}) {
		t.Errorf("the API server's CA: %+v, %v", root, err)
	}
	await(t, c.configMaps, metav1.NamespacePublic, isNodesCA, func() { remove(t, c.configMaps, metav1.NamespacePublic, "kubelet-serving-ca") })
	await(t, c.configMaps, metav1.NamespacePublic, isNodesCA, func() {
		forge := controllertest.Change(func(m *corev1.ConfigMap) { m.Data["ca.crt"] = "forged" })
		_, _, err := c.configMaps.Update(storagetest.In(t, metav1.NamespacePublic), "kubelet-serving-ca", forge,
			rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// TestEndingNamespaceIsNotRefilled deletes both objects while the namespace is being deleted, and waits until the
// controller has handled another namespace, which was queued later.
func TestEndingNamespaceIsNotRefilled(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.namespace(t, "shop")
	c.namespace(t, "office")
	if _, _, err := c.namespaces.Delete(storagetest.In(t, ""), "shop", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	remove(t, c.accounts, "shop", "default")
	remove(t, c.configMaps, "shop", "kube-root-ca.crt")
	await(t, c.configMaps, "office", isRootCA, func() { remove(t, c.configMaps, "office", "kube-root-ca.crt") })
	for store, name := range map[*registry.Store]string{c.accounts: "default", c.configMaps: "kube-root-ca.crt"} {
		if _, err := store.Get(storagetest.In(t, "shop"), name, &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s in an ending namespace: %v", name, err)
		}
	}
}

// TestEnsureInANamespaceThatEnds: in a namespace that is being deleted, or does not exist, no object is created.
func TestEnsureInANamespaceThatEnds(t *testing.T) {
	t.Parallel()
	c := idle(t)
	c.namespace(t, "shop")
	if _, _, err := c.namespaces.Delete(storagetest.In(t, ""), "shop", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shop", "nowhere"} {
		if err := c.controller.Ensure(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		for store, object := range map[*registry.Store]string{c.accounts: "default", c.configMaps: "kube-root-ca.crt"} {
			if _, err := store.Get(storagetest.In(t, name), object, &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("%s in namespace %s, which ends or is no more: %v", object, name, err)
			}
		}
	}
}

// TestNamespaceThatEndsInBetween deletes the namespace and empties it after the controller has created the objects in
// it: the controller deletes them again.
func TestNamespaceThatEndsInBetween(t *testing.T) {
	t.Parallel()
	var once sync.Once
	var c *cluster
	c = newCluster(t, controllertest.Before(http.MethodGet, func(path string) error {
		if path == "/api/v1/namespaces/kube-public" { // the last call of Ensure
			once.Do(func() {
				if _, _, err := c.namespaces.Delete(storagetest.In(t, ""), "kube-public", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	}))
	c.Run(t)
	c.namespace(t, "kube-public")
	for store, names := range map[*registry.Store][]string{c.accounts: {"default"}, c.configMaps: {"kube-root-ca.crt", "kubelet-serving-ca"}} {
		for _, name := range names {
			if _, err := store.Get(storagetest.In(t, "kube-public"), name, &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("%s in a namespace that is being deleted: %v", name, err)
			}
		}
	}
}

func TestFailureNamesTheObject(t *testing.T) {
	t.Parallel()
	away := errors.New("etcd is away")
	for path, want := range map[string]string{
		"/api/v1/namespaces/shop/serviceaccounts": "create service account shop/default: ",
		"/api/v1/namespaces/shop/configmaps":      "create config map shop/kube-root-ca.crt: ",
	} {
		c := newCluster(t, controllertest.Before(http.MethodPost, func(called string) error {
			if called == path {
				return away
			}
			return nil
		}))
		c.Run(t)
		ns := &corev1.Namespace{ObjectMeta: storagetest.Meta("", "shop")}
		made, err := c.namespaces.Create(storagetest.In(t, ""), ns, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
		if made == nil || err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, away) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
