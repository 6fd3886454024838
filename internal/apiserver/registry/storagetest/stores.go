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

// Pods are the store of pods and those of its parts that need nothing else.
type Pods struct {
	Pod      *registry.Store
	Status   *registry.Part
	Binding  *pod.BindingREST
	Eviction *pod.EvictionREST
}

// Pods returns the store of pods with its parts.
func (s *Storage) Pods(getter generic.RESTOptionsGetter) *Pods {
	s.t.Helper()
	pods := corev1.Resource("pods")
	made := s.stores(api.Inputs{Getter: getter}, pods)
	return &Pods{
		Pod: get[*registry.Store](s, made, pods), Status: get[*registry.Part](s, made, part(pods, "status")),
		Binding: get[*pod.BindingREST](s, made, part(pods, "binding")), Eviction: get[*pod.EvictionREST](s, made, part(pods, "eviction")),
	}
}

// Nodes returns the stores of nodes and of nodes/status.
func (s *Storage) Nodes(getter generic.RESTOptionsGetter) (*registry.Store, *registry.Part) {
	s.t.Helper()
	nodes := corev1.Resource("nodes")
	made := s.stores(api.Inputs{Getter: getter}, nodes)
	return get[*registry.Store](s, made, nodes), get[*registry.Part](s, made, part(nodes, "status"))
}

// Namespaces are the store of namespaces and its parts.
type Namespaces struct {
	Namespace *namespace.REST
	Status    *registry.Part
	Finalize  namespace.Finalize
}

// Namespaces returns the store of namespaces with its parts. If addDefaults is nil, new namespaces are empty.
func (s *Storage) Namespaces(getter generic.RESTOptionsGetter, addDefaults namespace.AddDefaults) *Namespaces {
	s.t.Helper()
	if addDefaults == nil {
		addDefaults = func(context.Context, string) error { return nil }
	}
	namespaces := corev1.Resource("namespaces")
	made := s.stores(api.Inputs{Getter: getter}, namespaces)
	return &Namespaces{
		Namespace: namespace.NewREST(get[*registry.Store](s, made, namespaces), addDefaults), Status: get[*registry.Part](s, made, part(namespaces, "status")),
		Finalize: get[namespace.Finalize](s, made, part(namespaces, "finalize")),
	}
}

// Requests are the store of certificate signing requests and its parts.
type Requests struct {
	Request          *registry.Store
	Approval, Status *registry.Part
}

// Requests returns the store of certificate signing requests with its parts.
func (s *Storage) Requests(getter generic.RESTOptionsGetter, signed certificatesigningrequest.Signed, c clock.PassiveClock) *Requests {
	s.t.Helper()
	requests := schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}
	made := s.stores(api.Inputs{Getter: getter, Signed: signed, Clock: c}, requests)
	return &Requests{
		Request:  get[*registry.Store](s, made, requests),
		Approval: get[*registry.Part](s, made, part(requests, "approval")), Status: get[*registry.Part](s, made, part(requests, "status")),
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

func part(of schema.GroupResource, name string) schema.GroupResource {
	return schema.GroupResource{Group: of.Group, Resource: of.Resource + "/" + name}
}
