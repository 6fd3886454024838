package registry

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/apiserver/pkg/warning"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Object is a stored kind: a pointer to one of k8s.io/api's structs.
type Object interface {
	runtime.Object
	metav1.Object
}

// Strategy is how objects of one kind are created and updated. It implements the library's strategies for creation, update,
// deletion and the reset of fields, with the few functions in which kinds differ. A nil function has no effect.
type Strategy[T Object] struct {
	runtime.ObjectTyper
	names.NameGenerator

	Namespaced bool
	// CreateOnUpdate allows PUT to create an object that does not exist.
	CreateOnUpdate bool
	// NeedsVersion refuses an update without a resourceVersion.
	NeedsVersion bool

	// OnCreate and OnUpdate set the fields that clients must not set. old is the stored object.
	OnCreate func(ctx context.Context, obj T)
	OnUpdate func(ctx context.Context, obj, old T)
	// Check and CheckUpdate return all faults. CheckUpdate repeats Check if the kind requires it.
	Check       func(obj T) field.ErrorList
	CheckUpdate func(obj, old T) field.ErrorList
	// Warn returns warnings for the client, on creation and update. WarnCreate returns warnings on creation only.
	Warn, WarnCreate func(ctx context.Context, obj T) []string
	// Reset are the fields that OnCreate and OnUpdate overwrite. Server-side apply must not own them.
	Reset map[fieldpath.APIVersion]*fieldpath.Set
}

var (
	_ rest.RESTCreateStrategy  = Strategy[*metav1.PartialObjectMetadata]{}
	_ rest.RESTUpdateStrategy  = Strategy[*metav1.PartialObjectMetadata]{}
	_ rest.ResetFieldsStrategy = Strategy[*metav1.PartialObjectMetadata]{}
)

// NamespaceScoped reports whether objects live in a namespace.
func (s Strategy[T]) NamespaceScoped() bool { return s.Namespaced }

// AllowCreateOnUpdate implements rest.RESTUpdateStrategy.
func (s Strategy[T]) AllowCreateOnUpdate(context.Context) bool { return s.CreateOnUpdate }

// AllowUnconditionalUpdate implements rest.RESTUpdateStrategy.
func (s Strategy[T]) AllowUnconditionalUpdate(context.Context) bool { return !s.NeedsVersion }

// Canonicalize implements rest.RESTCreateStrategy; defaulting has already made the stored form.
func (s Strategy[T]) Canonicalize(runtime.Object) {}

// PrepareForCreate implements rest.RESTCreateStrategy.
func (s Strategy[T]) PrepareForCreate(ctx context.Context, obj runtime.Object) {
	if s.OnCreate != nil {
		s.OnCreate(ctx, obj.(T))
	}
}

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (s Strategy[T]) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	if s.OnUpdate != nil {
		s.OnUpdate(ctx, obj.(T), old.(T))
	}
}

// Validate implements rest.RESTCreateStrategy.
func (s Strategy[T]) Validate(_ context.Context, obj runtime.Object) field.ErrorList {
	if s.Check == nil {
		return nil
	}
	return s.Check(obj.(T))
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (s Strategy[T]) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	if s.CheckUpdate == nil {
		return nil
	}
	return s.CheckUpdate(obj.(T), old.(T))
}

// WarningsOnCreate implements rest.RESTCreateStrategy.
func (s Strategy[T]) WarningsOnCreate(ctx context.Context, obj runtime.Object) []string {
	warnings := s.WarningsOnUpdate(ctx, obj, nil)
	if s.WarnCreate != nil {
		warnings = append(warnings, s.WarnCreate(ctx, obj.(T))...)
	}
	return warnings
}

// WarningsOnUpdate implements rest.RESTUpdateStrategy.
func (s Strategy[T]) WarningsOnUpdate(ctx context.Context, obj, old runtime.Object) []string {
	warnings := ownershipWarnings(obj, old)
	if s.Warn != nil {
		warnings = append(warnings, s.Warn(ctx, obj.(T))...)
	}
	return warnings
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (s Strategy[T]) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set { return s.Reset }

// ResetFields returns the set of the named top-level fields ("status", "spec") of one API version, for Strategy.Reset.
func ResetFields(apiVersion string, names ...string) map[fieldpath.APIVersion]*fieldpath.Set {
	set := fieldpath.NewSet()
	for _, name := range names {
		set.Insert(fieldpath.MakePathOrDie(name))
	}
	return map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(apiVersion): set}
}

// NamespacedFields returns the fields that a field selector may name for every object in a namespace.
func NamespacedFields[T Object](obj T) fields.Set {
	return fields.Set{"metadata.name": obj.GetName(), "metadata.namespace": obj.GetNamespace()}
}

// ClusterFields returns the fields that a field selector may name for every object outside of namespaces.
func ClusterFields[T Object](obj T) fields.Set { return fields.Set{"metadata.name": obj.GetName()} }

const noCollector = "this server has no garbage collector"

// collectorFinalizers are the finalizers that only a garbage collector removes.
var collectorFinalizers = []string{metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}

// ownershipWarnings returns warnings about new metadata on which only a garbage collector would act. old is nil for a new
// object.
func ownershipWarnings(obj, old runtime.Object) []string {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil
	}
	var before metav1.Object = &metav1.ObjectMeta{}
	if old != nil {
		if before, err = meta.Accessor(old); err != nil {
			return nil
		}
	}
	var warnings []string
	owners := m.GetOwnerReferences()
	_, mirror := m.GetAnnotations()[corev1.MirrorPodAnnotationKey] // the owner of a mirror pod is always its node
	if len(owners) > 0 && !mirror && !equality.Semantic.DeepEqual(owners, before.GetOwnerReferences()) {
		warnings = append(warnings, "metadata.ownerReferences: an object is not removed with its owners: "+noCollector)
	}
	for _, name := range collectorFinalizers {
		if slices.Contains(m.GetFinalizers(), name) && !slices.Contains(before.GetFinalizers(), name) {
			warnings = append(warnings, "metadata.finalizers: nothing removes "+name+" after the object is deleted: "+noCollector)
		}
	}
	return warnings
}

// warnOfCascade warns a client that requests the deletion of dependents first, because there will be none. It does not warn
// of Background, which kubectl requests with each deletion and which promises no time.
func warnOfCascade(ctx context.Context, options *metav1.DeleteOptions) {
	if options != nil && options.PropagationPolicy != nil && *options.PropagationPolicy == metav1.DeletePropagationForeground {
		warning.AddWarning(ctx, "", "propagationPolicy Foreground: dependents are not removed: "+noCollector)
	}
}
