// Package controllertest runs controllers in tests on an API server in process, with the storage, the handlers, the
// authorization and the admission of the real one.
//
// It is imported by tests only.
package controllertest

import (
	"context"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/sets"
	libraryadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapi "k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"

	"lanyard.dev/internal/apiserver/admission"
	"lanyard.dev/internal/apiserver/admission/podsecurity"
	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/authz"
	"lanyard.dev/internal/apiserver/loopback"
	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/bootstrap"
)

// Cluster serves stored resources to controllers, in process: through the library's handlers, the authorization by the
// default policy, and the admission that is about what controllers write. Its stores are on the mirror's storage. Tests
// create and read objects in the stores directly, where nothing is authorized.
type Cluster struct {
	*storagetest.Storage
	*mirror.Mirror
	t           testing.TB
	made        *api.Stores
	addDefaults namespace.AddDefaults

	loopback *loopback.Loopback
}

// Config is what clusters differ in.
type Config struct {
	// Inputs are passed to the stores. The cluster sets Typer and Getter.
	Inputs api.Inputs
	// AddDefaults is called for each new namespace; nil does nothing.
	AddDefaults namespace.AddDefaults
	// Replicas reports that other clusters write to the same storage.
	Replicas bool
	// Admits returns an error for a requester of certificates who may have none; nil admits all.
	Admits func(user string, groups, notBefore []string) error
}

// NewCluster serves the resources, which are stored in s. It ends with the test.
func NewCluster(t testing.TB, s *storagetest.Storage, config Config, resources ...schema.GroupResource) *Cluster {
	t.Helper()
	c := &Cluster{Storage: s, t: t, Mirror: mirror.New(mirror.Config{Base: s, SoleWriter: !config.Replicas}, resources...), loopback: loopback.New(), addDefaults: config.AddDefaults}
	if c.addDefaults == nil {
		c.addDefaults = func(context.Context, string) error { return nil }
	}
	config.Inputs.Typer, config.Inputs.Getter = s.Scheme, c.Mirror
	made, err := api.All().NewStores(config.Inputs, resources...)
	if err != nil {
		t.Fatal(err)
	}
	c.made = made
	for _, resource := range resources {
		if stored, err := api.Get[rest.Storage](made, resource); err == nil {
			t.Cleanup(stored.Destroy)
		}
	}
	c.loopback.Serve(c.handler(config, resources))
	return c
}

// Client returns the client of a controller, by its name. The wrappers, if any, see each call.
func (c *Cluster) Client(name string, wrappers ...func(http.RoundTripper) http.RoundTripper) kubernetes.Interface {
	c.t.Helper()
	client, err := kubernetes.NewForConfig(c.ClientConfig(name, wrappers...))
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// ClientConfig returns the configuration of the client that Client returns.
func (c *Cluster) ClientConfig(name string, wrappers ...func(http.RoundTripper) http.RoundTripper) *restclient.Config {
	config := c.loopback.Config(bootstrap.ControllerUser(name))
	for _, wrap := range wrappers {
		config.Wrap(wrap)
	}
	return config
}

// Before returns a wrapper for Client that calls do before each call of the verb, as "DELETE", with the path of the URL. If do
// fails, the call fails with its error.
func Before(verb string, do func(path string) error) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == verb {
				if err := do(r.URL.Path); err != nil {
					return nil, err
				}
			}
			return next.RoundTrip(r)
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Run runs the feeds and, when they have reported the stored objects, the controllers. All end with the test.
func (c *Cluster) Run(t testing.TB, controllers ...interface{ Run(context.Context) }) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, len(controllers)+1)
	run := func(r interface{ Run(context.Context) }) { r.Run(ctx); done <- struct{}{} }
	running := 1
	go run(c.Mirror)
	t.Cleanup(func() {
		cancel()
		for range running {
			<-done
		}
	})
	if err := c.WaitSynced(storagetest.In(t, "")); err != nil {
		t.Fatal(err)
	}
	for _, resource := range c.resources() {
		storagetest.AwaitReady(t, c.Store(resource))
	}
	for _, r := range controllers {
		running++
		go run(r)
	}
}

func (c *Cluster) resources() (all []schema.GroupResource) {
	for _, e := range c.entries() {
		if _, err := api.Get[*registry.Store](c.made, e.WithResource(e.Name).GroupResource()); err == nil {
			all = append(all, e.WithResource(e.Name).GroupResource())
		}
	}
	return all
}

// Store returns the store of a resource.
func (c *Cluster) Store(resource schema.GroupResource) *registry.Store {
	c.t.Helper()
	return find[*registry.Store](c, resource)
}

// Subresource returns a subresource, as "pods/status".
func (c *Cluster) Subresource(resource schema.GroupResource) *registry.Subresource {
	c.t.Helper()
	return find[*registry.Subresource](c, resource)
}

// Namespaces returns the namespaces as they are served.
func (c *Cluster) Namespaces() *namespace.REST {
	c.t.Helper()
	return namespace.NewREST(c.Store(corev1.Resource("namespaces")), c.addDefaults)
}

func find[T rest.Storage](c *Cluster, resource schema.GroupResource) T {
	c.t.Helper()
	found, err := api.Get[T](c.made, resource)
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}

// entry is a resource of the tables with its version.
type entry struct {
	schema.GroupVersion
	api.Resource
}

func (c *Cluster) entries() (all []entry) {
	for _, group := range api.All() {
		for _, version := range group.Versions {
			for _, resource := range version.Resources {
				all = append(all, entry{schema.GroupVersion{Group: group.Name, Version: version.Name}, resource})
			}
		}
	}
	return all
}

// handler serves what was made.
func (c *Cluster) handler(config Config, resources []schema.GroupResource) http.Handler {
	c.t.Helper()
	codecs := serializer.NewCodecFactory(c.Scheme)
	policy := defaultPolicy()
	az := recorder{authz.New(policy)}
	chain := func(h http.Handler) http.Handler {
		h = filters.WithAuthorization(h, az, codecs)
		h = filters.WithAuthentication(h, loopback.Authenticator{}, filters.Unauthorized(codecs), nil, nil)
		h = filters.WithRequestInfo(h, &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")})
		return filters.WithAuditInit(h)
	}
	server := genericserver.NewAPIServerHandler("test", codecs, chain, nil)
	admit := c.admission(config, policy, az)
	equivalent := runtime.NewEquivalentResourceRegistry()
	for gv, storage := range c.served(resources) {
		root := "/apis"
		if gv.Group == corev1.GroupName {
			root = "/api"
		}
		group := &genericapi.APIGroupVersion{
			Root: root, GroupVersion: gv, Storage: storage, Serializer: codecs, ParameterCodec: runtime.NewParameterCodec(c.Scheme),
			Creater: c.Scheme, Convertor: c.Scheme, UnsafeConvertor: runtime.UnsafeObjectConvertor(c.Scheme), Defaulter: c.Scheme, Typer: c.Scheme,
			Namer: runtime.Namer(meta.NewAccessor()), EquivalentResourceRegistry: equivalent, Authorizer: az, Admit: admit,
			TypeConverter: managedfields.NewDeducedTypeConverter(), ConvertabilityChecker: c.Scheme, MaxRequestBodyBytes: 3 << 20,
		}
		if _, _, err := group.InstallREST(server.GoRestfulContainer); err != nil {
			c.t.Fatal(err)
		}
	}
	return server
}

// served returns the storage of the resources and of their subresources, by version.
func (c *Cluster) served(resources []schema.GroupResource) map[schema.GroupVersion]map[string]rest.Storage {
	c.t.Helper()
	served := map[schema.GroupVersion]map[string]rest.Storage{}
	for _, e := range c.entries() {
		resource := e.WithResource(e.Name).GroupResource()
		if !sets.New(resources...).Has(resource) || e.Stored == nil {
			continue
		}
		if served[e.GroupVersion] == nil {
			served[e.GroupVersion] = map[string]rest.Storage{}
		}
		served[e.GroupVersion][e.Name] = find[rest.Storage](c, resource)
		if resource == corev1.Resource("namespaces") {
			served[e.GroupVersion][e.Name] = c.Namespaces()
		}
		for _, p := range e.Subresources {
			if p.Store != nil {
				served[e.GroupVersion][e.Name+"/"+p.Name] = find[rest.Storage](c, schema.GroupResource{Group: resource.Group, Resource: resource.Resource + "/" + p.Name})
			}
		}
	}
	return served
}

// admission returns the admission chain that the server has. If the cluster does not serve namespaces, every namespace exists.
func (c *Cluster) admission(config Config, policy *rbac.Index, az authorizer.UnconditionalAuthorizer) libraryadmission.Interface {
	c.t.Helper()
	admits := config.Admits
	if admits == nil {
		admits = func(string, []string, []string) error { return nil }
	}
	standards, err := podsecurity.ReadConfiguration("")
	if err != nil {
		c.t.Fatal(err)
	}
	plugins, err := admission.New(admission.Config{
		Authorizer: az, Permissions: policy, Admits: admits, Namespace: c.namespace, PodSecurity: standards,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return plugins
}

func (c *Cluster) namespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	store, err := api.Get[*registry.Store](c.made, corev1.Resource("namespaces"))
	if err != nil {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil
	}
	found, err := store.Get(request.WithNamespace(ctx, metav1.NamespaceNone), name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return found.(*corev1.Namespace), nil
}

func defaultPolicy() *rbac.Index {
	index := rbac.NewIndex()
	for _, r := range append(bootstrap.ClusterRoles(), bootstrap.ControllerRoles()...) {
		index.SetClusterRole(r)
	}
	for _, b := range append(bootstrap.ClusterRoleBindings(), bootstrap.ControllerRoleBindings()...) {
		index.SetClusterRoleBinding(b)
	}
	for _, r := range bootstrap.Roles() {
		index.SetRole(r)
	}
	for _, b := range bootstrap.RoleBindings() {
		index.SetRoleBinding(b)
	}
	return index
}

// Change returns an update of a store that applies mutate to what is stored.
func Change[T runtime.Object](mutate func(T)) rest.UpdatedObjectInfo {
	return rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, stored runtime.Object) (runtime.Object, error) {
		obj := stored.DeepCopyObject()
		mutate(obj.(T))
		return obj, nil
	})
}

// controllerName returns the name of the controller that a user is.
func controllerName(user string) (string, bool) {
	return strings.CutPrefix(user, bootstrap.ControllerUser(""))
}
