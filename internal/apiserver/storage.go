package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/encryption"
	"lanyard.dev/internal/apiserver/members"
	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/registry"
)

// etcdPrefix is where objects are stored, as in Kubernetes.
const etcdPrefix = "/registry"

// storage is the connection to etcd, and the stores and feeds of every resource.
type storage struct {
	tables api.Tables
	scheme *runtime.Scheme
	codecs serializer.CodecFactory

	members *members.Members // nil if etcd has one member only
	mirror  *mirror.Mirror
	stores  *stores

	encryption *encryption.Encryption // nil without an encryption configuration

	// library is the library's configuration with the health checks of etcd and of the encryption.
	library genericserver.Config
	// backend is how stores connect to etcd.
	backend storagebackend.Config
	// closeUnserved closes the storage of resources that are not served. The library's server does not know it.
	closeUnserved *closers
	// stopChecks ends these checks and their connections.
	stopChecks context.CancelFunc
}

// newStorage connects to etcd and makes the stores of the tables. signs reports whether this server signs the
// certificate requests to a signer.
func newStorage(o *Options, tables api.Tables, signs func(signerName string) bool) (storage, error) {
	s := tables.NewScheme()
	codecs := serializer.NewCodecFactory(s)
	library := genericserver.NewConfig(codecs)
	etcdMembers, err := members.New(members.Config{
		Endpoints: o.Etcd.Servers, CAFile: o.Etcd.CAFile, CertFile: o.Etcd.CertFile, KeyFile: o.Etcd.KeyFile, Key: path.Join(etcdPrefix, "health"),
	})
	if err != nil {
		return storage{}, err
	}
	checking, stopChecks := context.WithCancel(context.Background())
	made := storage{tables: tables, scheme: s, codecs: codecs, members: etcdMembers, stopChecks: stopChecks, closeUnserved: new(closers)}
	if err := made.connect(checking, o, library, signs); err != nil {
		made.close()
		return storage{}, err
	}
	return made, nil
}

// connect makes the parts that use etcd. The health checks end when the context checking ends.
func (s *storage) connect(checking context.Context, o *Options, library *genericserver.Config, signs func(signerName string) bool) error {
	etcd := etcdOptions(o, s.members, library)
	resources := serverstorage.NewDefaultStorageFactory(etcd.StorageConfig, etcd.DefaultStorageMediaType, s.codecs,
		serverstorage.NewDefaultResourceEncodingConfig(s.scheme), serverstorage.NewResourceConfig(), s.tables.Prefixes())
	for stored, others := range s.tables.Shared() {
		resources.AddCohabitatingResources(append([]schema.GroupResource{stored}, others...)...)
	}
	err := addEtcdChecks(checking, library, etcd)
	if err == nil {
		err = s.encrypt(checking, library, o.EncryptionProviderConfig)
	}
	if err == nil {
		err = etcd.ApplyWithStorageFactoryTo(resources, library)
	}
	if err != nil {
		return fmt.Errorf("set up storage on etcd %v: %w", o.Etcd.Servers, err)
	}
	s.mirror = mirror.New(mirror.Config{Base: library.RESTOptionsGetter, SoleWriter: o.Etcd.SoleWriter, MaxLag: o.Etcd.MaxLag}, s.tables.Mirrored()...)
	library.RESTOptionsGetter = s.mirror
	library.AddReadyzChecks(healthz.NamedCheck("storage-watch", func(*http.Request) error { return s.mirror.Fresh() }))
	s.library, s.backend = *library, etcd.StorageConfig
	s.stores, err = newStores(s.tables, api.Inputs{Typer: s.scheme, Getter: s.mirror, Signed: signs, Clock: clock.RealClock{}})
	return err
}

// addEtcdChecks adds the health checks of etcd, which end with ctx. The checks that the library would add end only after a server
// has served. If etcd is down, a new process would not help, so this process is alive without etcd, but not ready.
func addEtcdChecks(ctx context.Context, library *genericserver.Config, etcd *options.EtcdOptions) error {
	healthy, err := factory.CreateHealthCheck(etcd.StorageConfig, ctx.Done())
	if err != nil {
		return err
	}
	ready, err := factory.CreateReadyCheck(etcd.StorageConfig, ctx.Done())
	if err != nil {
		return err
	}
	check := healthz.NamedGroupedCheck("etcd", "etcd", func(*http.Request) error { return healthy() })
	library.HealthzChecks = append(library.HealthzChecks, check)
	library.AddReadyzChecks(check, healthz.NamedGroupedCheck("etcd-readiness", "etcd-readiness", func(*http.Request) error { return ready() }))
	etcd.SkipHealthEndpoints = true
	return nil
}

// encrypt sets the encryption of stored objects, if a file configures one. Connections to plugins end with ctx, so that they end
// even if the server never serves.
func (s *storage) encrypt(ctx context.Context, library *genericserver.Config, file string) error {
	if file == "" {
		return nil
	}
	opened, checks, err := encryption.Open(ctx, file, library.APIServerID)
	if err != nil {
		return err
	}
	s.encryption = opened
	library.ResourceTransformers = opened.Transformers()
	library.HealthzChecks = append(library.HealthzChecks, checks...)
	library.AddReadyzChecks(checks...)
	return nil
}

func etcdOptions(o *Options, etcdMembers *members.Members, library *genericserver.Config) *options.EtcdOptions {
	backend := storagebackend.NewDefaultConfig(etcdPrefix, nil)
	backend.Transport.ServerList = o.Etcd.Servers
	backend.Transport.TrustedCAFile = o.Etcd.CAFile
	backend.Transport.CertFile, backend.Transport.KeyFile = o.Etcd.CertFile, o.Etcd.KeyFile
	if etcdMembers != nil {
		backend.Transport.EgressLookup = etcdMembers.Lookup
	}
	backend.StorageObjectCountTracker = library.StorageObjectCountTracker

	etcd := options.NewEtcdOptions(backend)
	etcd.DefaultStorageMediaType = runtime.ContentTypeProtobuf
	// This server has no garbage collector, so a deletion must not wait for one.
	etcd.EnableGarbageCollection = false
	return etcd
}

// feed returns the feed of a mirrored resource of the core group.
func (s *storage) feed(resource string) *mirror.Feed { return s.mirror.Feed(corev1.Resource(resource)) }

// run keeps the feeds and the connections to etcd up to date until ctx ends.
func (s *storage) run(ctx context.Context) {
	if s.members != nil {
		go s.members.Run(ctx)
	}
	go s.mirror.Run(ctx)
}

// close closes every connection to etcd of a storage that does not run.
func (s *storage) close() {
	s.stopChecks()
	s.closeUnserved.close()
	if s.stores != nil {
		s.stores.Close()
	}
	if s.members != nil {
		s.members.Close()
	}
}

// certificateRequests is a resource for which k8s.io/api has no constructor of the name.
var certificateRequests = schema.GroupResource{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests"}

// stores are the stored resources of the tables, and those among them that the server itself uses.
type stores struct {
	*api.Stores

	namespaces, serviceAccounts, secrets, pods, nodes *registry.Store

	roles, roleBindings, clusterRoles, clusterRoleBindings *registry.Store
}

// newStores makes every store.
func newStores(tables api.Tables, in api.Inputs) (*stores, error) {
	made, err := tables.NewStores(in)
	if err != nil {
		return nil, err
	}
	s := &stores{Stores: made}
	err = errors.Join(
		pick(made, corev1.Resource("namespaces"), &s.namespaces),
		pick(made, corev1.Resource("serviceaccounts"), &s.serviceAccounts),
		pick(made, corev1.Resource("secrets"), &s.secrets),
		pick(made, corev1.Resource("pods"), &s.pods),
		pick(made, corev1.Resource("nodes"), &s.nodes),
		pick(made, rbacv1.Resource("roles"), &s.roles),
		pick(made, rbacv1.Resource("rolebindings"), &s.roleBindings),
		pick(made, rbacv1.Resource("clusterroles"), &s.clusterRoles),
		pick(made, rbacv1.Resource("clusterrolebindings"), &s.clusterRoleBindings),
	)
	if err != nil {
		made.Close()
		return nil, err
	}
	return s, nil
}

func pick(made *api.Stores, resource schema.GroupResource, into **registry.Store) (err error) {
	*into, err = api.Get[*registry.Store](made, resource)
	return err
}
