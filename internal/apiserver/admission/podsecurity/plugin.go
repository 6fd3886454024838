// Package podsecurity enforces the Pod Security Standard of a namespace on its pods.
//
// The labels pod-security.kubernetes.io/{enforce,audit,warn} of a namespace choose a standard, as in Kubernetes. The standards
// and their messages come from k8s.io/pod-security-admission.
package podsecurity

import (
	"context"
	"errors"
	"fmt"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/component-base/metrics/legacyregistry"
	podsecurity "k8s.io/pod-security-admission/admission"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"
)

// Config holds what the plugin depends on.
type Config struct {
	// Namespace returns a stored namespace, or a not-found API error.
	Namespace func(ctx context.Context, name string) (*corev1.Namespace, error)
	// Pods returns the pods of a namespace. When a namespace gets a new standard, a warning lists the pods that do not
	// meet it.
	Pods func(ctx context.Context, namespace string) ([]*corev1.Pod, error)
	// Defaults apply to namespaces whose labels choose no standard.
	Defaults *Configuration
}

// Plugin is the admission plugin.
type Plugin struct {
	*admission.Handler
	rules podsecurity.Admission
}

var _ admission.ValidationInterface = &Plugin{}

// recorder counts decisions for /metrics. All authorities of a process share it.
var recorder = sync.OnceValue(func() metrics.Recorder {
	r := metrics.NewPrometheusRecorder(api.MajorMinorVersion(1, 37))
	r.MustRegister(legacyregistry.MustRegister)
	return r
})

// New returns the plugin, or an error if the defaults are invalid.
func New(c Config) (*Plugin, error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	p := &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update), rules: podsecurity.Admission{
		Configuration: c.Defaults, Evaluator: evaluator, Metrics: recorder(),
		NamespaceGetter: namespaces(c.Namespace), PodLister: pods(c.Pods),
	}}
	if err := errors.Join(p.rules.CompleteConfiguration(), p.rules.ValidateConfiguration()); err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	return p, nil
}

type namespaces func(ctx context.Context, name string) (*corev1.Namespace, error)

// GetNamespace implements podsecurity.NamespaceGetter.
func (get namespaces) GetNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	return get(ctx, name)
}

type pods func(ctx context.Context, namespace string) ([]*corev1.Pod, error)

// ListPods implements podsecurity.PodLister.
func (list pods) ListPods(ctx context.Context, namespace string) ([]*corev1.Pod, error) {
	return list(ctx, namespace)
}

// Validate implements admission.ValidationInterface. It checks objects as they will be stored, with all defaults.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	switch a.GetResource().GroupResource() {
	case corev1.Resource("pods"), corev1.Resource("namespaces"):
	default:
		return nil
	}
	verdict := p.rules.Validate(ctx, &api.AttributesRecord{
		Name: a.GetName(), Namespace: a.GetNamespace(), Kind: a.GetKind(), Resource: a.GetResource(), Subresource: a.GetSubresource(),
		Operation: admissionv1.Operation(a.GetOperation()), Object: a.GetObject(), OldObject: a.GetOldObject(), Username: userName(a.GetUserInfo()),
	})
	for _, text := range verdict.Warnings {
		warning.AddWarning(ctx, "", text)
	}
	for key, value := range verdict.AuditAnnotations {
		if err := a.AddAnnotation(api.AuditAnnotationPrefix+key, value); err != nil {
			return admission.NewForbidden(a, err)
		}
	}
	switch {
	case verdict.Allowed:
		return nil
	case verdict.Result == nil:
		return admission.NewForbidden(a, errors.New("not allowed by "+Name))
	}
	return &apierrors.StatusError{ErrStatus: *verdict.Result}
}

func userName(who user.Info) string {
	if who == nil {
		return ""
	}
	return who.GetName()
}
