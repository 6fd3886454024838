package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
)

// namespaceLifecycle refuses writes into namespaces that are missing or being deleted, and the deletion of the
// namespaces that the system needs.
type namespaceLifecycle struct {
	*admission.Handler
	find func(ctx context.Context, name string) (*corev1.Namespace, error)
}

var _ admission.MutationInterface = &namespaceLifecycle{}

func newNamespaceLifecycle(find func(ctx context.Context, name string) (*corev1.Namespace, error)) *namespaceLifecycle {
	return &namespaceLifecycle{Handler: admission.NewHandler(admission.Create, admission.Update, admission.Delete), find: find}
}

// immortal are the namespaces that may not be deleted.
var immortal = sets.New(metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic)

var (
	namespaceKind = corev1.SchemeGroupVersion.WithKind("Namespace").GroupKind()
	reviewKind    = "LocalSubjectAccessReview"
)

// Admit implements admission.MutationInterface. It changes nothing; plugins that admit run before those that validate.
func (p *namespaceLifecycle) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetKind().GroupKind() == namespaceKind {
		if a.GetOperation() == admission.Delete && immortal.Has(a.GetName()) {
			return apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), fmt.Errorf("this namespace may not be deleted"))
		}
		return nil
	}
	// A namespace that is missing or being deleted does not prevent deletions, and a review stores nothing.
	if a.GetNamespace() == "" || a.GetOperation() == admission.Delete || a.GetKind().Kind == reviewKind {
		return nil
	}
	namespace, err := p.find(ctx, a.GetNamespace())
	if err != nil {
		return err
	}
	if a.GetOperation() == admission.Create && namespace.Status.Phase == corev1.NamespaceTerminating {
		return terminating(a)
	}
	return nil
}

func terminating(a admission.Attributes) error {
	name := a.GetNamespace()
	err := admission.NewForbidden(a, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", name))
	if status, ok := err.(*apierrors.StatusError); ok && status.ErrStatus.Details != nil {
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", name), Field: "metadata.namespace",
		})
	}
	return err
}
