package storagetest

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/certificatesigningrequest"
	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/pod"
)

// Store returns the store of a resource as the server makes it, on the storage that getter provides.
func (s *Storage) Store(getter generic.RESTOptionsGetter, resource schema.GroupResource) *registry.Store {
	s.t.Helper()
	return get[*registry.Store](s, s.stores(api.Inputs{Getter: getter}, resource), resource)
}

// Pods are the store of pods and the subresources that need only that store.
type Pods struct {
	Pod      *registry.Store
	Status   *registry.Subresource
	Binding  *pod.BindingREST
	Eviction *pod.EvictionREST
}

// Pods returns the store of pods with its subresources.
func (s *Storage) Pods(getter generic.RESTOptionsGetter) *Pods {
	s.t.Helper()
	pods := corev1.Resource("pods")
	made := s.stores(api.Inputs{Getter: getter}, pods)
	return &Pods{
		Pod: get[*registry.Store](s, made, pods), Status: get[*registry.Subresource](s, made, subresource(pods, "status")),
		Binding: get[*pod.BindingREST](s, made, subresource(pods, "binding")), Eviction: get[*pod.EvictionREST](s, made, subresource(pods, "eviction")),
	}
}

// Nodes returns the stores of nodes and of nodes/status.
func (s *Storage) Nodes(getter generic.RESTOptionsGetter) (*registry.Store, *registry.Subresource) {
	s.t.Helper()
	nodes := corev1.Resource("nodes")
	made := s.stores(api.Inputs{Getter: getter}, nodes)
	return get[*registry.Store](s, made, nodes), get[*registry.Subresource](s, made, subresource(nodes, "status"))
}

// Namespaces are the store of namespaces and its subresources.
type Namespaces struct {
	Namespace *namespace.REST
	Status    *registry.Subresource
	Finalize  namespace.Finalize
}

// Namespaces returns the store of namespaces with its subresources. If addDefaults is nil, new namespaces are empty.
func (s *Storage) Namespaces(getter generic.RESTOptionsGetter, addDefaults namespace.AddDefaults) *Namespaces {
	s.t.Helper()
	if addDefaults == nil {
		addDefaults = func(context.Context, string) error { return nil }
	}
	namespaces := corev1.Resource("namespaces")
	made := s.stores(api.Inputs{Getter: getter}, namespaces)
	return &Namespaces{
		Namespace: namespace.NewREST(get[*registry.Store](s, made, namespaces), addDefaults), Status: get[*registry.Subresource](s, made, subresource(namespaces, "status")),
		Finalize: get[namespace.Finalize](s, made, subresource(namespaces, "finalize")),
	}
}

// Requests are the store of certificate signing requests and its subresources.
type Requests struct {
	Request          *registry.Store
	Approval, Status *registry.Subresource
}

// Requests returns the store of certificate signing requests with its subresources.
func (s *Storage) Requests(getter generic.RESTOptionsGetter, signed certificatesigningrequest.Signed, c clock.PassiveClock) *Requests {
	s.t.Helper()
	requests := schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}
	made := s.stores(api.Inputs{Getter: getter, Signed: signed, Clock: c}, requests)
	return &Requests{
		Request:  get[*registry.Store](s, made, requests),
		Approval: get[*registry.Subresource](s, made, subresource(requests, "approval")), Status: get[*registry.Subresource](s, made, subresource(requests, "status")),
	}
}

func (s *Storage) stores(in api.Inputs, resource schema.GroupResource) *api.Stores {
	s.t.Helper()
	in.Typer = s.Scheme
	made, err := api.All().NewStores(in, resource)
	if err != nil {
		s.t.Fatal(err)
	}
	return made
}

func get[T rest.Storage](s *Storage, made *api.Stores, resource schema.GroupResource) T {
	s.t.Helper()
	found, err := api.Get[T](made, resource)
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

func subresource(of schema.GroupResource, name string) schema.GroupResource {
	return schema.GroupResource{Group: of.Group, Resource: of.Resource + "/" + name}
}
