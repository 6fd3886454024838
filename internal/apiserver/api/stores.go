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
	"lanyard.dev/internal/apiserver/registry/issued"
	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/registry/podsession"
	"lanyard.dev/internal/apiserver/registry/serviceaccount"
	"lanyard.dev/internal/apiserver/registry/signingkey"
	"lanyard.dev/internal/ledger"
)

// Inputs are what the stores depend on.
type Inputs struct {
	Typer  runtime.ObjectTyper
	Getter generic.RESTOptionsGetter
	// Signed reports whether this server signs the certificate requests to a signer.
	Signed certificatesigningrequest.Signed
	Clock  clock.PassiveClock
}

// Backends are what resources that need more than a store depend on.
type Backends struct {
	// AddDefaults is called for each new namespace before its creation returns.
	AddDefaults namespace.AddDefaults
	Nodes       podsession.Nodes
	Authorizer  authorizer.UnconditionalAuthorizer
	Rules       authorizer.RuleResolver
	// Tokens authenticates the tokens in reviews. Audiences are used for a review that names no audience.
	Tokens    authenticator.Token
	Audiences authenticator.Audiences
	// Issuing issues tokens.
	Issuing serviceaccount.TokenConfig
	// SigningKeys are the keys that sign and verify tokens.
	SigningKeys signingkey.Config
	// IssuedTokens and IssuedCertificates are the records of the ledger.
	IssuedTokens       issued.Config[ledger.TokenRecord]
	IssuedCertificates issued.Config[ledger.CertificateRecord]
}

// Stores are the stored resources and their subresources.
type Stores struct {
	tables Tables
	stores map[schema.GroupResource]*registry.Store
	served map[schema.GroupVersionResource]rest.Storage // the key may be RESOURCE/SUBRESOURCE
}

// NewStores makes the stores of the named resources, or of all if none is named.
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
			made.Close()
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
	for _, p := range e.Subresources {
		if p.Store != nil {
			s.served[e.WithResource(e.Name+"/"+p.Name)] = p.Store(store, in)
		}
	}
}

// Close ends the stores' watch caches and their connections to etcd. A server that ends does the same.
func (s *Stores) Close() {
	for _, store := range s.stores {
		store.Destroy()
	}
}

// Get returns the store of a resource, or the storage of a RESOURCE/SUBRESOURCE as the type that its entry makes.
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

// Namespaced returns the stores of namespaced objects, which a deleted namespace is emptied of.
func (s *Stores) Namespaced() map[schema.GroupResource]*registry.Store {
	all := map[schema.GroupResource]*registry.Store{}
	for _, e := range s.tables.entries() {
		if store := s.stores[e.groupResource()]; e.Namespaced && store != nil {
			all[e.groupResource()] = store
		}
	}
	return all
}

// Served holds the resources in the form in which the library installs them.
type Served struct {
	// Storage holds the storage of each resource and subresource, by version.
	Storage map[schema.GroupVersion]map[string]rest.Storage
	// Ephemeral are the resources and subresources whose objects are never stored.
	Ephemeral []EphemeralKind
}

// EphemeralKind is a kind whose objects are returned to the client that posts them and never stored.
type EphemeralKind struct {
	schema.GroupVersionResource
	Subresource string // "" for a resource
	Kind        schema.GroupVersionKind
	Storage     rest.Storage
}

// Serve makes the resources that need more than a store, and returns all resources.
func (s *Stores) Serve(b Backends) Served {
	all := Served{Storage: map[schema.GroupVersion]map[string]rest.Storage{}}
	for _, e := range s.tables.entries() {
		paths := all.Storage[e.GroupVersion]
		if paths == nil {
			paths = map[string]rest.Storage{}
			all.Storage[e.GroupVersion] = paths
		}
		if e.Ephemeral != nil {
			made := ephemeralStorage{Creater: e.Ephemeral(b), singular: e.Singular, namespaced: e.Namespaced}
			paths[e.Name] = made
			all.Ephemeral = append(all.Ephemeral, EphemeralKind{e.WithResource(e.Name), "", e.WithKind(kindOf(e.Kind)), made})
		} else if e.Computed != nil {
			paths[e.Name] = e.Computed.storage(e.Resource, b)
		} else if e.Serve != nil {
			paths[e.Name] = e.Serve(s.stores[e.groupResource()], b)
		} else {
			paths[e.Name] = s.served[e.WithResource(e.Name)]
		}
		for _, p := range e.Subresources {
			path := e.Name + "/" + p.Name
			switch {
			case p.Ephemeral != nil:
				made := p.Ephemeral(b)
				paths[path] = made
				all.Ephemeral = append(all.Ephemeral, EphemeralKind{e.WithResource(e.Name), p.Name, made.GroupVersionKind(e.GroupVersion), made})
			case p.Connect != nil:
				paths[path] = p.Connect(s.stores[e.groupResource()], b)
			default:
				paths[path] = s.served[e.WithResource(path)]
			}
		}
	}
	return all
}

// ephemeralStorage serves a resource whose objects are not stored, with the singular name and the scope of its entry.
type ephemeralStorage struct {
	rest.Creater
	singular   string
	namespaced bool
}

var (
	_ rest.Storage              = ephemeralStorage{}
	_ rest.Scoper               = ephemeralStorage{}
	_ rest.SingularNameProvider = ephemeralStorage{}
)

// Destroy implements rest.Storage.
func (ephemeralStorage) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (s ephemeralStorage) NamespaceScoped() bool { return s.namespaced }

// GetSingularName implements rest.SingularNameProvider.
func (s ephemeralStorage) GetSingularName() string { return s.singular }
