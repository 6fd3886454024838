package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Kind is everything that the store of a resource depends on.
type Kind[T Object] struct {
	Resource   schema.GroupResource
	Singular   string
	ShortNames []string
	Categories []string

	New     func() T
	NewList func() runtime.Object

	Strategy Strategy[T]
	// Delete is the strategy of deletion if it is not Strategy. Resources with graceful deletion set it.
	Delete rest.RESTDeleteStrategy
	// TTL returns how long an object is kept after it was written, in seconds. If TTL is nil, objects are kept until they
	// are deleted.
	TTL func(T) uint64

	Columns []metav1.TableColumnDefinition
	Row     func(obj T, now time.Time) []any
	// Fields returns the fields that a field selector may name, with their values.
	Fields func(T) fields.Set
	// Indexed are the fields of Fields by which the watch cache finds objects without reading all of them.
	Indexed []string
}

// Store is the store of a resource, as the API serves it.
type Store struct {
	*genericregistry.Store
	shortNames, categories []string
}

var (
	_ rest.StandardStorage    = &Store{}
	_ rest.ShortNamesProvider = &Store{}
	_ rest.CategoriesProvider = &Store{}
)

// Readable is a store without the methods that write, for resources that serve only some of them.
type Readable interface {
	rest.StorageWithReadiness
	rest.Scoper
	rest.Getter
	rest.Lister
	rest.Watcher
	rest.SingularNameProvider
	rest.ShortNamesProvider
	rest.CategoriesProvider
	rest.ResetFieldsStrategy
}

// ShortNames implements rest.ShortNamesProvider.
func (s *Store) ShortNames() []string { return s.shortNames }

// Categories implements rest.CategoriesProvider.
func (s *Store) Categories() []string { return s.categories }

// Create implements rest.Creater.
func (s *Store) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	made, err := s.Store.Create(ctx, obj, validate, options)
	return made, clientError(err)
}

// Update implements rest.Updater.
func (s *Store) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, forceAllowCreate bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	updated, made, err := s.Store.Update(ctx, name, info, create, update, forceAllowCreate, options)
	return updated, made, clientError(err)
}

// Delete implements rest.GracefulDeleter.
func (s *Store) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	warnOfCascade(ctx, options)
	return s.Store.Delete(ctx, name, validate, options)
}

// DeleteCollection implements rest.CollectionDeleter.
func (s *Store) DeleteCollection(ctx context.Context, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions, which *internalversion.ListOptions) (runtime.Object, error) {
	warnOfCascade(ctx, options)
	return s.Store.DeleteCollection(ctx, validate, options, which)
}

// NewStore returns the store of a resource, on the storage that getter provides.
func NewStore[T Object](kind Kind[T], getter generic.RESTOptionsGetter) (*Store, error) {
	s := &genericregistry.Store{
		NewFunc:                   func() runtime.Object { return kind.New() },
		NewListFunc:               kind.NewList,
		DefaultQualifiedResource:  kind.Resource,
		SingularQualifiedResource: schema.GroupResource{Group: kind.Resource.Group, Resource: kind.Singular},
		CreateStrategy:            kind.Strategy,
		UpdateStrategy:            kind.Strategy,
		DeleteStrategy:            kind.Strategy,
		ResetFieldsStrategy:       kind.Strategy,
		TableConvertor:            TableOf(kind.Columns, kind.Row),
	}
	if kind.Delete != nil {
		s.DeleteStrategy = kind.Delete
	}
	if kind.TTL != nil {
		s.TTLFunc = func(obj runtime.Object, existing uint64, update bool) (uint64, error) {
			return kind.TTL(obj.(T)), nil
		}
	}
	if err := s.CompleteWithOptions(kind.storeOptions(getter)); err != nil {
		return nil, fmt.Errorf("store of %s: %w", kind.Resource, err)
	}
	return &Store{Store: s, shortNames: kind.ShortNames, categories: kind.Categories}, nil
}

func (k Kind[T]) storeOptions(getter generic.RESTOptionsGetter) *generic.StoreOptions {
	options := &generic.StoreOptions{RESTOptions: getter, AttrFunc: k.attributes}
	if len(k.Indexed) == 0 {
		return options
	}
	indexers := cache.Indexers{}
	options.TriggerFunc = storage.IndexerFuncs{}
	for _, name := range k.Indexed {
		value := func(obj runtime.Object) string { return k.Fields(obj.(T))[name] }
		options.TriggerFunc[name] = value
		indexers[storage.FieldIndex(name)] = func(obj any) ([]string, error) { return []string{value(obj.(T))}, nil }
	}
	options.Indexers = &indexers
	return options
}

func (k Kind[T]) attributes(obj runtime.Object) (labels.Set, fields.Set, error) {
	item, ok := obj.(T)
	if !ok {
		return nil, nil, fmt.Errorf("select %s: got %T", k.Resource, obj)
	}
	return item.GetLabels(), k.Fields(item), nil
}

// StrategyOf returns the update strategy of a store of objects of type T.
func StrategyOf[T Object](s *Store) Strategy[T] { return s.UpdateStrategy.(Strategy[T]) }

// WithStrategy returns a store of the same objects with another strategy.
func WithStrategy[T Object](s *Store, strategy Strategy[T]) *Store {
	other := *s.Store
	other.CreateStrategy, other.UpdateStrategy, other.ResetFieldsStrategy = strategy, strategy, strategy
	return &Store{Store: &other, shortNames: s.shortNames, categories: s.categories}
}

// Subresource is a subresource that reads and updates the object itself with a strategy of its own, such as /status.
type Subresource struct {
	store *genericregistry.Store
}

var (
	_ rest.Patcher             = &Subresource{}
	_ rest.ResetFieldsStrategy = &Subresource{}
)

// NewSubresource returns a subresource of s that updates with the given strategy.
func NewSubresource[T Object](s *Store, strategy Strategy[T]) *Subresource {
	copied := *s.Store
	copied.CreateStrategy = nil
	copied.UpdateStrategy = strategy
	copied.ResetFieldsStrategy = strategy
	return &Subresource{store: &copied}
}

// New implements rest.Storage.
func (s *Subresource) New() runtime.Object { return s.store.New() }

// Destroy implements rest.Storage; the object's store owns the connection.
func (s *Subresource) Destroy() {}

// Get implements rest.Getter.
func (s *Subresource) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return s.store.Get(ctx, name, options)
}

// Update implements rest.Updater; a subresource never creates its object.
func (s *Subresource) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	updated, made, err := s.store.Update(ctx, name, info, create, update, false, options)
	return updated, made, clientError(err)
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (s *Subresource) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return s.store.GetResetFields()
}

// ConvertToTable implements rest.TableConvertor.
func (s *Subresource) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return s.store.ConvertToTable(ctx, obj, options)
}

// unreadableApply is the beginning of the library's error about an apply configuration that does not match the schema of
// its kind.
const unreadableApply = "failed to create typed patch object"

// tooLargeToSend is part of the gRPC client's error about a message above its own limit, which is higher than etcd's.
const tooLargeToSend = "larger than max"

// clientError returns an error with status 4xx for an error that the client caused and that the library treats as an error of the
// server. The library would log what the client sent. It returns other errors unchanged.
func clientError(err error) error {
	if err == nil || apierrors.ReasonForError(err) != "" {
		return err
	}
	// etcd's client gives its errors a gRPC code. The size is the only invalid argument that a client of the API can cause.
	var refusal interface {
		error
		Code() codes.Code
	}
	switch {
	case errors.As(err, &refusal) && refusal.Code() == codes.InvalidArgument:
		return apierrors.NewRequestEntityTooLargeError("the object is too large to be stored: " + refusal.Error())
	case status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), tooLargeToSend):
		return apierrors.NewRequestEntityTooLargeError("the object is too large to be sent to etcd")
	case strings.HasPrefix(err.Error(), unreadableApply):
		return apierrors.NewBadRequest(err.Error())
	}
	return err
}
