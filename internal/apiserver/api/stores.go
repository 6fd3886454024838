package api

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/certificatesigningrequest"
	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/podsession"
	"lanyard.dev/internal/apiserver/registry/serviceaccount"
)

// Inputs are what stores are made from.
type Inputs struct {
	Typer  runtime.ObjectTyper
	Getter generic.RESTOptionsGetter
	// Signed reports whose certificate requests this server signs.
	Signed certificatesigningrequest.Signed
	Clock  clock.PassiveClock
}

// Backends are what the resources are made from that need more than a store.
type Backends struct {
	// Furnish is called for each new namespace before its creation is answered.
	Furnish    namespace.Furnish
	Nodes      podsession.Nodes
	Authorizer authorizer.UnconditionalAuthorizer
	Rules      authorizer.RuleResolver
	// Tokens authenticates the tokens that are reviewed. Audiences are meant where a review names none.
	Tokens    authenticator.Token
	Audiences authenticator.Audiences
	// Issuing says how tokens are issued.
	Issuing serviceaccount.TokenConfig
}

// Stores are the stored resources and their parts.
type Stores struct {
	tables Tables
	stores map[schema.GroupResource]*registry.Store
	served map[schema.GroupVersionResource]rest.Storage // the resource may be of the form RESOURCE/PART
}

// NewStores makes the stores of the resources, of all if none is named.
func (t Tables) NewStores(in Inputs, resources ...schema.GroupResource) (*Stores, error) {
	made := &Stores{tables: t, stores: map[schema.GroupResource]*registry.Store{}, served: map[schema.GroupVersionResource]rest.Storage{}}
	wanted := map[schema.GroupResource]bool{}
	for _, resource := range resources {
		wanted[resource] = true
	}
	for _, e := range t.entries() {
		if e.Stored == nil || len(wanted) > 0 && !wanted[e.groupResource()] {
			continue
		}
		store, err := e.Stored.store(e.Resource, e.groupResource(), in, made)
		if err != nil {
			return nil, err
		}
		made.add(e, store, in)
	}
	return made, nil
}

func (s *Stores) add(e entry, store *registry.Store, in Inputs) {
	if e.stores() {
		s.stores[e.groupResource()] = store
	}
	s.served[e.WithResource(e.Name)] = store
	for _, p := range e.Parts {
		if p.Store != nil {
			s.served[e.WithResource(e.Name+"/"+p.Name)] = p.Store(store, in)
		}
	}
}

// Get returns the store of a resource, or a part of one (RESOURCE/PART) as the type that its entry makes.
func Get[T rest.Storage](s *Stores, resource schema.GroupResource) (T, error) {
	for _, g := range s.tables {
		for _, v := range g.Versions {
			if served, ok := s.served[resource.WithVersion(v.Name)].(T); ok && g.Name == resource.Group {
				return served, nil
			}
		}
	}
	var none T
	return none, fmt.Errorf("the tables of the API have no %s that is a %T", resource, none)
}

// Namespaced returns the stores that a deleted namespace is emptied of.
func (s *Stores) Namespaced() map[schema.GroupResource]*registry.Store {
	all := map[schema.GroupResource]*registry.Store{}
	for _, e := range s.tables.entries() {
		if store := s.stores[e.groupResource()]; e.Namespaced && store != nil {
			all[e.groupResource()] = store
		}
	}
	return all
}

// Served lays the resources out as the library installs them.
type Served struct {
	// Storage holds the storage of each resource and part, by version.
	Storage map[schema.GroupVersion]map[string]rest.Storage
	// Answered are the resources and parts whose objects are answered and never stored.
	Answered []Answered
}

// Answered is a resource, or a part of one, whose objects are answered and never stored.
type Answered struct {
	schema.GroupVersionResource
	Part    string // "" for a resource
	Kind    schema.GroupVersionKind
	Storage rest.Storage
}

// Serve makes the resources that need more than a store, and returns all.
func (s *Stores) Serve(b Backends) Served {
	all := Served{Storage: map[schema.GroupVersion]map[string]rest.Storage{}}
	for _, e := range s.tables.entries() {
		paths := all.Storage[e.GroupVersion]
		if paths == nil {
			paths = map[string]rest.Storage{}
			all.Storage[e.GroupVersion] = paths
		}
		if e.Answer != nil {
			made := answered{Creater: e.Answer(b), singular: e.Singular, namespaced: e.Namespaced}
			paths[e.Name] = made
			all.Answered = append(all.Answered, Answered{e.WithResource(e.Name), "", e.WithKind(kindOf(e.Kind)), made})
		} else if e.Serve != nil {
			paths[e.Name] = e.Serve(s.stores[e.groupResource()], b)
		} else {
			paths[e.Name] = s.served[e.WithResource(e.Name)]
		}
		for _, p := range e.Parts {
			path := e.Name + "/" + p.Name
			switch {
			case p.Answer != nil:
				made := p.Answer(b)
				paths[path] = made
				all.Answered = append(all.Answered, Answered{e.WithResource(e.Name), p.Name, made.GroupVersionKind(e.GroupVersion), made})
			case p.Connect != nil:
				paths[path] = p.Connect(s.stores[e.groupResource()], b)
			default:
				paths[path] = s.served[e.WithResource(path)]
			}
		}
	}
	return all
}

// answered serves a resource whose objects are not stored, under the names and in the scope that its entry gives.
type answered struct {
	rest.Creater
	singular   string
	namespaced bool
}

var (
	_ rest.Storage              = answered{}
	_ rest.Scoper               = answered{}
	_ rest.SingularNameProvider = answered{}
)

// Destroy implements rest.Storage.
func (answered) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (a answered) NamespaceScoped() bool { return a.namespaced }

// GetSingularName implements rest.SingularNameProvider.
func (a answered) GetSingularName() string { return a.singular }
