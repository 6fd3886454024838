package namespacedefaults_test

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/controller/namespacedefaults"
)

const (
	certificate      = "-----BEGIN CERTIFICATE-----\n"
	nodesCertificate = certificate + "of nodes\n"
)

// cluster is real stores, mirrored as in the server, and a controller.
type cluster struct {
	base                 *storagetest.Storage
	namespaces           *storagetest.Namespaces
	accounts, configMaps *registry.Store
	controller           *namespacedefaults.Controller
}

// start returns a cluster whose controller runs.
func start(t *testing.T) *cluster {
	t.Helper()
	c := idle(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.controller.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

func idle(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{base: storagetest.Start(t)}
	namespaces, accounts, configMaps := corev1.Resource("namespaces"), corev1.Resource("serviceaccounts"), corev1.Resource("configmaps")
	m := mirror.New(mirror.Config{Base: c.base, SoleWriter: true}, namespaces, accounts, configMaps)
	furnishNow := func(ctx context.Context, name string) error { return c.controller.Namespace(ctx, name) }
	var errs [3]error
	c.namespaces = c.base.Namespaces(m, furnishNow)
	c.accounts = c.base.Store(m, accounts)
	c.configMaps = c.base.Store(m, configMaps)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.namespaces.Namespace.Destroy(); c.accounts.Destroy(); c.configMaps.Destroy() })
	c.controller = namespacedefaults.New(c.namespaces.Namespace, c.accounts, c.configMaps, []byte(certificate), []byte(nodesCertificate))
	m.Feed(accounts).Listen(c.controller.Accounts())
	m.Feed(configMaps).Listen(c.controller.ConfigMaps())
	m.Feed(configMaps).Listen(c.controller.NodesCA())
	m.Feed(namespaces).Listen(c.controller.Namespaces())

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if err := m.WaitSynced(storagetest.In(t, "")); err != nil {
		t.Fatal(err)
	}
	storagetest.AwaitReady(t, c.namespaces.Namespace, c.accounts, c.configMaps)
	return c
}

func (c *cluster) namespace(t *testing.T, name string) {
	t.Helper()
	_, err := c.namespaces.Namespace.Create(storagetest.In(t, ""), &corev1.Namespace{ObjectMeta: storagetest.Meta("", name)},
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
	// The controller may have taken it out of an ending namespace by itself.
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

func TestNewNamespaceIsFurnishedBeforeTheAnswer(t *testing.T) {
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
	if err := c.controller.Namespace(t.Context(), "shop"); err != nil {
		t.Errorf("furnishing twice: %v", err)
	}
}

func TestRestored(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.namespace(t, "shop")
	change := func(mutate func(*corev1.ConfigMap)) func() {
		return func() {
			_, _, err := c.configMaps.Update(storagetest.In(t, "shop"), "kube-root-ca.crt", controller.Change(mutate),
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

// The CA of nodes must be where it can be read, and nowhere where it could be taken for the API server's.
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
}

// TestEndingNamespaceIsNotRefilled removes both objects while the namespace ends, and waits until the controller has
// worked off another namespace that was queued after it.
func TestEndingNamespaceIsNotRefilled(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.namespace(t, "shop")
	c.namespace(t, "office")
	if _, _, err := c.namespaces.Namespace.Delete(storagetest.In(t, ""), "shop", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
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

// TestNamespaceThatEndsMeanwhile begins to end the namespace between the look at it and the first object.
func TestNamespaceThatEndsMeanwhile(t *testing.T) {
	t.Parallel()
	c := idle(t)
	c.namespace(t, "shop")
	if _, _, err := c.namespaces.Namespace.Delete(storagetest.In(t, ""), "shop", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shop", "nowhere"} {
		if err := c.controller.Namespace(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		for store, object := range map[*registry.Store]string{c.accounts: "default", c.configMaps: "kube-root-ca.crt"} {
			if _, err := store.Get(storagetest.In(t, name), object, &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("%s in namespace %s, which ends or is no more: %v", object, name, err)
			}
		}
	}
}

// refusing is a store of which creation fails.
type refusing struct {
	namespacedefaults.Store
	err error
}

func (r refusing) Create(context.Context, runtime.Object, rest.ValidateObjectFunc, *metav1.CreateOptions) (runtime.Object, error) {
	return nil, r.err
}

func TestFailureNamesTheObject(t *testing.T) {
	t.Parallel()
	away := errors.New("etcd is away")
	exists := apierrors.NewAlreadyExists(corev1.Resource("serviceaccounts"), "default")
	for _, test := range []struct {
		accounts, configMaps error
		want                 string
	}{
		{away, nil, "make service account shop/default: etcd is away"},
		{exists, away, "make config map shop/kube-root-ca.crt: etcd is away"},
	} {
		err := namespacedefaults.New(nil, refusing{err: test.accounts}, refusing{err: test.configMaps}, nil, nil).Namespace(t.Context(), "shop")
		if err == nil || err.Error() != test.want || !errors.Is(err, away) {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}
