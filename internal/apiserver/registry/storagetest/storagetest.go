// Package storagetest provides tests with the storage that the server itself uses, on an etcd of their own.
//
// It makes stores from the tables of package api. Only tests import it.
package storagetest

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/etcd"
)

// Storage provides storage on etcd without a watch cache. It implements generic.RESTOptionsGetter.
type Storage struct {
	// Scheme is the scheme of the server, with its defaults.
	Scheme *runtime.Scheme
	t      testing.TB
	kinds  *serverstorage.DefaultStorageFactory
}

var _ generic.RESTOptionsGetter = &Storage{}

// Start runs an etcd until the test ends. It takes about 0.1 s, so each test can have its own.
func Start(t testing.TB) *Storage {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	server, err := etcd.Start(ctx, etcd.Config{Dir: t.TempDir(), UnsafeNoFsync: true})
	if err != nil {
		t.Fatalf("start etcd: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			t.Errorf("stop etcd: %v", err)
		}
	})
	return on(t, server.Endpoint())
}

func on(t testing.TB, endpoint string) *Storage {
	tables := api.All()
	s := tables.NewScheme()
	backend := storagebackend.NewDefaultConfig("/registry", nil)
	backend.Transport.ServerList = []string{endpoint}
	kinds := serverstorage.NewDefaultStorageFactory(*backend, runtime.ContentTypeProtobuf, serializer.NewCodecFactory(s),
		serverstorage.NewDefaultResourceEncodingConfig(s), serverstorage.NewResourceConfig(), tables.Prefixes())
	for stored, others := range tables.Shared() {
		kinds.AddCohabitatingResources(append([]schema.GroupResource{stored}, others...)...)
	}
	return &Storage{Scheme: s, t: t, kinds: kinds}
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (s *Storage) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	config, err := s.kinds.NewConfig(resource, example)
	if err != nil {
		return generic.RESTOptions{}, err
	}
	return generic.RESTOptions{
		StorageConfig: config, Decorator: s.undecorated, DeleteCollectionWorkers: 1,
		ResourcePrefix: s.kinds.ResourcePrefix(resource),
	}, nil
}

// Unserved returns the configuration of the storage of a resource that is not served.
func (s *Storage) Unserved(resource schema.GroupResource, codec runtime.Codec) *storagebackend.ConfigForResource {
	config := s.kinds.StorageConfig
	config.Codec = codec
	return config.ForResource(resource)
}

// undecorated closes each connection when the test ends, before etcd stops.
func (s *Storage) undecorated(config *storagebackend.ConfigForResource, prefix string, keyFunc func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, attrs storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	made, destroy, err := generic.UndecoratedStorage(config, prefix, keyFunc, newFunc, newListFunc, attrs, triggers, indexers)
	if err == nil {
		s.t.Cleanup(destroy)
	}
	return made, destroy, err
}

// In returns the context of a request in a namespace, or outside of namespaces if it is "". It ends with the test.
func In(t testing.TB, namespace string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return request.WithNamespace(ctx, namespace)
}

// AwaitReady waits until stores with a watch cache can be listed and watched.
func AwaitReady(t testing.TB, stores ...rest.StorageWithReadiness) {
	t.Helper()
	for _, store := range stores {
		err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true,
			func(context.Context) (bool, error) { return store.ReadinessCheck() == nil, nil })
		if err != nil {
			t.Fatalf("watch cache: %v", store.ReadinessCheck())
		}
	}
}

// Meta returns the metadata of an object with a name.
func Meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}
