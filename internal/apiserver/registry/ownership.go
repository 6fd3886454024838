package registry

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/warning"
)

const noCollector = "this server has no garbage collector"

// collectorFinalizers are those that a garbage collector alone takes away.
var collectorFinalizers = []string{metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}

// ownershipWarnings tells of what in an object's metadata only a garbage collector would act on, if it is new. old is nil for
// a new object.
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
	_, mirror := m.GetAnnotations()[corev1.MirrorPodAnnotationKey] // whose owner is its node, always
	if len(owners) > 0 && !mirror && !equality.Semantic.DeepEqual(owners, before.GetOwnerReferences()) {
		warnings = append(warnings, "metadata.ownerReferences: an object is not removed with its owners: "+noCollector)
	}
	for _, name := range collectorFinalizers {
		if slices.Contains(m.GetFinalizers(), name) && !slices.Contains(before.GetFinalizers(), name) {
			warnings = append(warnings, "metadata.finalizers: nobody takes "+name+" away once the object is deleted: "+noCollector)
		}
	}
	return warnings
}

// warnOfCascade tells who asks for the removal of dependents first that there will be none. Background, which kubectl always
// asks for, promises no moment, and is not worth a word each time.
func warnOfCascade(ctx context.Context, options *metav1.DeleteOptions) {
	if options != nil && options.PropagationPolicy != nil && *options.PropagationPolicy == metav1.DeletePropagationForeground {
		warning.AddWarning(ctx, "", "propagationPolicy Foreground: dependents are not removed: "+noCollector)
	}
}
