package namespace

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"

	"lanyard.dev/internal/apiserver/registry"
)

// AddDefaults creates in a new namespace the objects that every namespace has. It is called before the request that created the
// namespace is answered.
type AddDefaults func(ctx context.Context, namespace string) error

// Finalize is a subresource that can be updated and neither read nor patched, as in Kubernetes.
type Finalize interface {
	rest.Storage
	rest.Updater
	rest.ResetFieldsStrategy
}

// REST serves namespaces. It embeds only some methods of its store: a collection of namespaces cannot be deleted.
type REST struct {
	registry.Readable
	rest.Updater
	store       *registry.Store
	addDefaults AddDefaults
}

// Strategy returns how namespaces are created and updated.
func Strategy() registry.Strategy[*corev1.Namespace] {
	return registry.Strategy[*corev1.Namespace]{
		OnCreate: func(_ context.Context, obj *corev1.Namespace) { PrepareForCreate(obj) },
		OnUpdate: func(_ context.Context, obj, old *corev1.Namespace) {
			obj.Spec.Finalizers, obj.Status = old.Spec.Finalizers, old.Status
		},
		Check: Validate, CheckUpdate: ValidateUpdate,
		Reset: registry.ResetFields("v1", "status"),
	}
}

// NewREST returns the resource on the store of namespaces. It calls addDefaults for each new namespace.
func NewREST(store *registry.Store, addDefaults AddDefaults) *REST {
	return &REST{Readable: store, Updater: store, store: store, addDefaults: addDefaults}
}

// NewStatus returns namespaces/status on the store of namespaces.
func NewStatus(store *registry.Store) *registry.Subresource {
	status := registry.StrategyOf[*corev1.Namespace](store)
	status.OnUpdate = func(_ context.Context, obj, old *corev1.Namespace) { obj.Spec = old.Spec }
	status.CheckUpdate = ValidateStatusUpdate
	status.Reset = registry.ResetFields("v1", "spec")
	return registry.NewSubresource(store, status)
}

// NewFinalize returns namespaces/finalize on the store of namespaces.
func NewFinalize(store *registry.Store) Finalize {
	finalize := registry.StrategyOf[*corev1.Namespace](store)
	finalize.OnUpdate = func(_ context.Context, obj, old *corev1.Namespace) { obj.Status = old.Status }
	finalize.CheckUpdate = ValidateFinalizeUpdate
	return struct{ Finalize }{registry.NewSubresource(store, finalize)}
}

// KeepUntilEmpty makes a store keep a terminating namespace until the finalizers of its spec are removed too, and not only the
// finalizers of its metadata.
func KeepUntilEmpty(store *registry.Store) { store.ShouldDeleteDuringUpdate = isEmptied }

// New implements rest.Storage.
func (r *REST) New() runtime.Object { return r.store.New() }

func isEmptied(_ context.Context, _ string, obj, _ runtime.Object) bool {
	return len(obj.(*corev1.Namespace).Spec.Finalizers) == 0
}

// Create creates a namespace and the objects that every namespace has. If the latter fails, the namespace remains and is
// returned; a controller adds the objects later.
func (r *REST) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	made, err := r.store.Create(ctx, obj, validate, options)
	if err != nil || dryrun.IsDryRun(options.DryRun) {
		return made, err
	}
	name := made.(*corev1.Namespace).Name
	if err := r.addDefaults(ctx, name); err != nil {
		return made, fmt.Errorf("namespace %q was created, but not yet its default service account and root CA: %w", name, err)
	}
	return made, nil
}

// Delete sets the phase of a namespace to Terminating. The namespace is removed when its contents are deleted and its
// finalizers are removed.
func (r *REST) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	found, err := r.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, false, err
	}
	ns := found.(*corev1.Namespace)
	if err := precondition(ns, options); err != nil {
		return nil, false, err
	}
	if ns.DeletionTimestamp.IsZero() && len(ns.Spec.Finalizers)+len(ns.Finalizers) > 0 {
		return r.terminate(ctx, ns, validate, options)
	}
	if len(ns.Spec.Finalizers) > 0 {
		return ns, false, nil
	}
	return r.store.Delete(ctx, name, validate, options)
}

func precondition(ns *corev1.Namespace, options *metav1.DeleteOptions) error {
	if options == nil || options.Preconditions == nil {
		return nil
	}
	if uid := options.Preconditions.UID; uid != nil && *uid != ns.UID {
		return apierrors.NewConflict(corev1.Resource("namespaces"), ns.Name,
			fmt.Errorf("precondition failed: UID in precondition: %v, UID in object meta: %v", *uid, ns.UID))
	}
	if version := options.Preconditions.ResourceVersion; version != nil && *version != ns.ResourceVersion {
		return apierrors.NewConflict(corev1.Resource("namespaces"), ns.Name,
			fmt.Errorf("precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", *version, ns.ResourceVersion))
	}
	return nil
}

// terminate sets deletionTimestamp and phase. It updates the stored object with a function, which runs again if another
// writer changed the object, so that a concurrent write does not fail the deletion.
func (r *REST) terminate(ctx context.Context, ns *corev1.Namespace, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	key, err := r.store.KeyFunc(ctx, ns.Name)
	if err != nil {
		return nil, false, err
	}
	out := &corev1.Namespace{}
	mark := func(existing runtime.Object) (runtime.Object, error) {
		current := existing.(*corev1.Namespace)
		if err := precondition(current, options); err != nil {
			return nil, err
		}
		if validate != nil {
			if err := validate(ctx, current); err != nil {
				return nil, err
			}
		}
		if current.DeletionTimestamp.IsZero() {
			now := metav1.Now()
			current.DeletionTimestamp = &now
		}
		current.Status.Phase = corev1.NamespaceTerminating
		return current, nil
	}
	err = r.store.Storage.GuaranteedUpdate(ctx, key, out, false, nil, storage.SimpleUpdate(mark), dryrun.IsDryRun(options.DryRun), nil)
	if err != nil {
		return nil, false, storeerr.InterpretUpdateError(err, corev1.Resource("namespaces"), ns.Name)
	}
	return out, false, nil
}
