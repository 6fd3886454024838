// Package namespacelifecycle refuses writes into namespaces that are missing or ending, and the removal of those the
// system lives in.
package namespacelifecycle

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
)

// Find returns a namespace as it is now, or a not-found API error.
type Find func(ctx context.Context, name string) (*corev1.Namespace, error)

// Plugin is the admission plugin.
type Plugin struct {
	*admission.Handler
	find Find
}

var _ admission.MutationInterface = &Plugin{}

// New returns the plugin.
func New(find Find) *Plugin {
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update, admission.Delete), find: find}
}

// immortal are the namespaces that may not be deleted.
var immortal = sets.New(metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic)

var (
	namespaceKind = corev1.SchemeGroupVersion.WithKind("Namespace").GroupKind()
	reviewKind    = "LocalSubjectAccessReview"
)

// Admit implements admission.MutationInterface. It changes nothing, but is asked before plugins that would.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetKind().GroupKind() == namespaceKind {
		if a.GetOperation() == admission.Delete && immortal.Has(a.GetName()) {
			return apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), fmt.Errorf("this namespace may not be deleted"))
		}
		return nil
	}
	// A deletion is always right, and a review makes nothing.
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
