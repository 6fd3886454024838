package apiserver

import (
	"fmt"
	"path"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/registry/generic"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"

	"lanyard.dev/internal/apiserver/members"
	"lanyard.dev/internal/apiserver/mirror"
)

// etcdPrefix is where objects are stored, as in Kubernetes.
const etcdPrefix = "/registry"

// mirrored are the resources whose changes the process must know before it answers: tokens hang on some, decisions on
// others, and controllers keep promises about the rest.
var mirrored = []schema.GroupResource{
	corev1.Resource("namespaces"), corev1.Resource("serviceaccounts"), corev1.Resource("secrets"),
	corev1.Resource("configmaps"), corev1.Resource("pods"), corev1.Resource("nodes"),
	rbacv1.Resource("roles"), rbacv1.Resource("rolebindings"),
	rbacv1.Resource("clusterroles"), rbacv1.Resource("clusterrolebindings"),
	{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests"},
	coordinationv1.Resource("leases"),
}

// newMembers watches over the members of an etcd that other processes use too. It returns nil where there is one only.
func newMembers(o *Etcd) (*members.Members, error) {
	return members.New(members.Config{
		Endpoints: o.Servers, CAFile: o.CAFile, CertFile: o.CertFile, KeyFile: o.KeyFile, Key: path.Join(etcdPrefix, "health"),
	})
}

// newMirror connects the configuration to etcd and returns the storage that every store is made on.
func newMirror(o *Options, etcdMembers *members.Members, config *genericserver.Config, s *runtime.Scheme, codecs serializer.CodecFactory) (*mirror.Mirror, error) {
	backend := storagebackend.NewDefaultConfig(etcdPrefix, nil)
	backend.Transport.ServerList = o.Etcd.Servers
	backend.Transport.TrustedCAFile = o.Etcd.CAFile
	backend.Transport.CertFile, backend.Transport.KeyFile = o.Etcd.CertFile, o.Etcd.KeyFile
	if etcdMembers != nil {
		backend.Transport.EgressLookup = etcdMembers.Lookup
	}
	backend.StorageObjectCountTracker = config.StorageObjectCountTracker

	etcd := options.NewEtcdOptions(backend)
	etcd.DefaultStorageMediaType = runtime.ContentTypeProtobuf
	etcd.EncryptionProviderConfigFilepath = o.EncryptionProviderConfig
	// Nothing here collects orphans, so a deletion must not wait for someone who does.
	etcd.EnableGarbageCollection = false

	factory := serverstorage.NewDefaultStorageFactory(etcd.StorageConfig, etcd.DefaultStorageMediaType, codecs,
		serverstorage.NewDefaultResourceEncodingConfig(s), serverstorage.NewResourceConfig(), map[schema.GroupResource]string{
			corev1.Resource("nodes"): "minions",
		})
	factory.AddCohabitatingResources(corev1.Resource("events"), schema.GroupResource{Group: eventsv1.GroupName, Resource: "events"})
	if err := etcd.ApplyWithStorageFactoryTo(factory, config); err != nil {
		return nil, fmt.Errorf("set up storage on etcd %v: %w", o.Etcd.Servers, err)
	}
	// Whether this process is alive does not hang on etcd: to start it anew would not mend that. Whether it is ready does.
	config.LivezChecks = slices.DeleteFunc(config.LivezChecks, func(check healthz.HealthChecker) bool { return check.Name() == "etcd" })
	return mirror.New(mirror.Config{Base: config.RESTOptionsGetter, Alone: o.Etcd.Alone, MaxLag: o.Etcd.MaxLag}, mirrored...), nil
}

var _ generic.RESTOptionsGetter = &mirror.Mirror{}
