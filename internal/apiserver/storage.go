package apiserver

import (
	"fmt"
	"path"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/registry/generic"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/members"
	"lanyard.dev/internal/apiserver/mirror"
)

// etcdPrefix is where objects are stored, as in Kubernetes.
const etcdPrefix = "/registry"

// newMembers watches over the members of an etcd that other processes use too. It returns nil where there is one only.
func newMembers(o *Etcd) (*members.Members, error) {
	return members.New(members.Config{
		Endpoints: o.Servers, CAFile: o.CAFile, CertFile: o.CertFile, KeyFile: o.KeyFile, Key: path.Join(etcdPrefix, "health"),
	})
}

// newMirror connects the configuration to etcd and returns the storage that every store is made on.
func newMirror(o *Options, etcdMembers *members.Members, config *genericserver.Config, tables api.Tables, s *runtime.Scheme, codecs serializer.CodecFactory) (*mirror.Mirror, error) {
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
		serverstorage.NewDefaultResourceEncodingConfig(s), serverstorage.NewResourceConfig(), tables.Prefixes())
	for stored, others := range tables.Shared() {
		factory.AddCohabitatingResources(append([]schema.GroupResource{stored}, others...)...)
	}
	if err := etcd.ApplyWithStorageFactoryTo(factory, config); err != nil {
		return nil, fmt.Errorf("set up storage on etcd %v: %w", o.Etcd.Servers, err)
	}
	// Whether this process is alive does not hang on etcd: to start it anew would not mend that. Whether it is ready does.
	config.LivezChecks = slices.DeleteFunc(config.LivezChecks, func(check healthz.HealthChecker) bool { return check.Name() == "etcd" })
	return mirror.New(mirror.Config{Base: config.RESTOptionsGetter, SoleWriter: o.Etcd.SoleWriter, MaxLag: o.Etcd.MaxLag}, tables.Mirrored()...), nil
}

var _ generic.RESTOptionsGetter = &mirror.Mirror{}
