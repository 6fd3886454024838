package api

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"

	"lanyard.dev/internal/apiserver/registry"
)

// Tables are the API groups of a server, in the order of discovery.
type Tables []Group

// Group is the table of one API group.
type Group struct {
	Name string // "" for the core group
	// Versions are in the order of preference. Objects are stored in the first.
	Versions []Version
}

// Version is one version of a group.
type Version struct {
	Name      string
	Resources []Resource
	// Types are further kinds of the version: the bodies of requests to subresources, of this group or another.
	Types []runtime.Object
}

// Resource declares one resource. One of Stored, Computed and Ephemeral is set.
type Resource struct {
	Name, Singular         string
	ShortNames, Categories []string
	Namespaced             bool
	// Kind and List are empty objects of the Go types. List is nil for an ephemeral resource.
	Kind, List runtime.Object
	// Columns are the columns that kubectl get shows.
	Columns []metav1.TableColumnDefinition

	// Stored makes the store: Objects or SameObjects.
	Stored Stored
	// Mirrored is true if the resource has a feed, whose listeners learn of a change before the write returns.
	Mirrored bool
	// Prefix is the directory in etcd, if it is not Name.
	Prefix string
	// Serve returns the storage that is served in place of the store; nil serves the store itself.
	Serve func(*registry.Store, Backends) rest.Storage

	// Computed declares a resource whose objects are made from other data when they are read.
	Computed Computed

	// Ephemeral makes a resource whose objects are returned to the client that posts them and never stored.
	Ephemeral func(Backends) rest.Creater

	Subresources []Subresource

	// Credentials is whether the bodies of requests for the resource contain tokens or secret values. The audit log then
	// records neither bodies nor messages that may quote them, whatever its policy.
	Credentials bool
}

// Subresource declares a subresource of a resource. One of Store, Connect and Ephemeral is set.
type Subresource struct {
	Name string
	// Store makes a subresource that reads and writes the store of its resource.
	Store func(*registry.Store, Inputs) rest.Storage
	// Unstored is whether Store makes a subresource that does not store the bodies of requests, such as a Binding.
	Unstored bool
	// Connect makes a subresource that connects the client to a node. Its requests are sessions: they have no deadline.
	Connect func(*registry.Store, Backends) rest.Storage
	// Ephemeral makes a subresource whose objects are returned to the client that posts them and never stored.
	Ephemeral func(Backends) EphemeralSubresource
	// Options are the parameters of requests to the subresource, if it has any.
	Options *Options
	// Credentials is whether the bodies of requests to the subresource contain tokens or secret values, as for a Resource.
	Credentials bool
}

// EphemeralSubresource serves a subresource whose objects are not stored.
type EphemeralSubresource interface {
	rest.Storage
	rest.NamedCreater
	rest.GroupVersionKindProvider
}

// Options are the parameters of a request.
type Options struct {
	kind runtime.Object
	read func(*runtime.Scheme) error
}

// Stored declares how the objects of a resource are stored and decoded.
type Stored interface {
	// store returns the store of r. made holds the stores of the earlier entries.
	store(r Resource, gr schema.GroupResource, in Inputs, made *Stores) (*registry.Store, error)
	// decoding returns the types of the internal form of r, if they differ from the types of r, and what else a scheme registers.
	decoding() (internal []runtime.Object, add []func(*runtime.Scheme) error)
	// labels returns the stored name of each field that a field selector on r may name.
	labels(r Resource, all Tables) map[string]string
}

// Objects declares the storage of objects of one kind.
type Objects[T registry.Object] struct {
	// Strategy lacks the typer, the generator of names, and the scope, which store sets.
	Strategy registry.Strategy[T]
	// Complete, if not nil, sets the parts of the strategy that depend on Inputs.
	Complete func(*registry.Strategy[T], Inputs)
	// Delete, if not nil, returns the strategy of deletion in place of Strategy. Graceful deletion needs it.
	Delete func(registry.Strategy[T]) rest.RESTDeleteStrategy
	// Default, if not nil, sets the fields that an author left out. It runs on every decoding and is idempotent.
	Default func(T)
	// TTL is how long a written object is kept; 0 keeps it until it is deleted.
	TTL time.Duration
	Row func(obj T, now time.Time) []any
	// Fields returns the fields of an object that a field selector may name. The names are the same for every object. If Fields
	// is nil, they are the name and the namespace.
	Fields func(T) fields.Set
	// Indexed names the fields of Fields by which the watch cache finds objects without a scan.
	Indexed []string
	// Unselected are fields that a selector may name and that no object has.
	Unselected []string
	// Adjust, if not nil, changes the store after it is made.
	Adjust func(*registry.Store)
}

var _ Stored = Objects[*metav1.PartialObjectMetadata]{}

func (o Objects[T]) store(r Resource, gr schema.GroupResource, in Inputs, _ *Stores) (*registry.Store, error) {
	strategy := o.Strategy
	strategy.ObjectTyper, strategy.NameGenerator, strategy.Namespaced = in.Typer, names.SimpleNameGenerator, r.Namespaced
	if o.Complete != nil {
		o.Complete(&strategy, in)
	}
	kind := registry.Kind[T]{
		Resource: gr, Singular: r.Singular, ShortNames: r.ShortNames, Categories: r.Categories,
		New:      func() T { return r.Kind.DeepCopyObject().(T) },
		NewList:  r.List.DeepCopyObject,
		Strategy: strategy, Columns: r.Columns, Row: o.Row, Fields: o.selectable(r), Indexed: o.Indexed,
	}
	if o.Delete != nil {
		kind.Delete = o.Delete(strategy)
	}
	if o.TTL != 0 {
		kind.TTL = func(T) uint64 { return uint64(o.TTL.Seconds()) }
	}
	store, err := registry.NewStore(kind, in.Getter)
	if err == nil && o.Adjust != nil {
		o.Adjust(store)
	}
	return store, err
}

func (o Objects[T]) decoding() (internal []runtime.Object, add []func(*runtime.Scheme) error) {
	if o.Default != nil {
		add = append(add, defaultWith(o.Default))
	}
	return nil, add
}

func (o Objects[T]) selectable(r Resource) func(T) fields.Set {
	switch {
	case o.Fields != nil:
		return o.Fields
	case r.Namespaced:
		return registry.NamespacedFields[T]
	}
	return registry.ClusterFields[T]
}

// metaLabels are the fields by which objects of every kind can be selected.
var metaLabels = []string{"metadata.name", "metadata.namespace"}

// themselves maps each of the fields to itself.
func themselves(fields ...[]string) map[string]string {
	known := map[string]string{}
	for _, field := range slices.Concat(fields...) {
		known[field] = field
	}
	return known
}

// labels maps each field that a selector may name to itself: the metadata, and what Fields returns.
func (o Objects[T]) labels(r Resource, _ Tables) map[string]string {
	known := themselves(metaLabels, o.Unselected)
	for label := range o.selectable(r)(r.Kind.DeepCopyObject().(T)) {
		known[label] = label
	}
	return known
}

// SameObjects serves the objects of another resource in another version of its group, or in another form in another
// group.
type SameObjects[T registry.Object] struct {
	// Of is the resource that stores the objects. Its entry comes earlier.
	Of schema.GroupResource
	// Strategy, if not nil, changes how objects are written through this resource.
	Strategy func(*registry.Strategy[T])
	// Internal and InternalList are the types of the stored objects, if they differ from the types of this resource.
	Internal, InternalList runtime.Object
	// Conversions register the conversions between the types of this resource and the internal types.
	Conversions []func(*runtime.Scheme) error
	// Labels holds the stored name of each field that a selector may name, if the names differ.
	Labels map[string]string
}

var _ Stored = SameObjects[*metav1.PartialObjectMetadata]{}

func (o SameObjects[T]) store(_ Resource, _ schema.GroupResource, _ Inputs, made *Stores) (*registry.Store, error) {
	store, err := Get[*registry.Store](made, o.Of)
	if err != nil || o.Strategy == nil {
		return store, err
	}
	strategy := registry.StrategyOf[T](store)
	o.Strategy(&strategy)
	return registry.WithStrategy(store, strategy), nil
}

func (o SameObjects[T]) decoding() (internal []runtime.Object, add []func(*runtime.Scheme) error) {
	if o.Internal != nil {
		internal = []runtime.Object{o.Internal, o.InternalList}
	}
	return internal, o.Conversions
}

func (o SameObjects[T]) labels(_ Resource, all Tables) map[string]string {
	if o.Labels != nil {
		return o.Labels
	}
	for _, entry := range all.entries() {
		if entry.groupResource() == o.Of && entry.stores() {
			return entry.Stored.labels(entry.Resource, all)
		}
	}
	return nil
}

// Computed declares how the objects of a resource are made that is not stored.
type Computed interface {
	storage(r Resource, b Backends) rest.Storage
	// selectable returns the fields that a field selector may name.
	selectable() []string
}

// Projection declares a resource of objects of type T that are made from other data.
type Projection[T runtime.Object] struct {
	// Storage makes the storage, which embeds the description.
	Storage func(registry.Description, Backends) rest.Storage
	Row     func(obj T, now time.Time) []any
	// Fields are the fields that a field selector may name.
	Fields []string
}

var _ Computed = Projection[*metav1.PartialObjectMetadata]{}

func (p Projection[T]) storage(r Resource, b Backends) rest.Storage {
	return p.Storage(registry.Description{
		Singular: r.Singular, Short: r.ShortNames, Category: r.Categories, Namespaced: r.Namespaced,
		TableConvertor: registry.TableOf(r.Columns, p.Row),
	}, b)
}

func (p Projection[T]) selectable() []string { return p.Fields }

func (o SameObjects[T]) of() schema.GroupResource { return o.Of }
