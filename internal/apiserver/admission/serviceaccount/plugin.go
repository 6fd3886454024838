// Package serviceaccount sets the service account of every new pod, and adds the volume of its token.
//
// It issues no token. The agent requests one when it starts the pod.
package serviceaccount

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
)

// defaultName is the account of a pod that names none.
const defaultName = "default"

// Find returns a stored account, or a not-found API error.
type Find func(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error)

// Plugin is the admission plugin.
type Plugin struct {
	*admission.Handler
	find     Find
	randomly func(prefix string) string
}

var (
	_ admission.MutationInterface   = &Plugin{}
	_ admission.ValidationInterface = &Plugin{}
)

// New returns the plugin.
func New(find Find) *Plugin {
	return &Plugin{Handler: admission.NewHandler(admission.Create), find: find, randomly: suffixed}
}

// Admit implements admission.MutationInterface.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	pod, ok := podOf(a)
	if !ok {
		return nil
	}
	if isMirror(pod) {
		return p.Validate(ctx, a, o)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultName
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := p.account(ctx, a, pod)
	if err != nil {
		return err
	}
	if wantsToken(pod, account) {
		p.mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = append([]corev1.LocalObjectReference(nil), account.ImagePullSecrets...)
	}
	if pod.Spec.ServiceAccountName == defaultName {
		warning.AddWarning(ctx, "", defaultWarning(cmp.Or(pod.Name, pod.GenerateName), a.GetNamespace()))
	}
	return nil
}

func defaultWarning(pod, namespace string) string {
	return fmt.Sprintf("pod %q uses the service account \"default\", whose permissions every such pod in namespace %q shares: create one for it with 'kubectl create serviceaccount NAME -n %s' and set spec.serviceAccountName", pod, namespace, namespace)
}

// Validate implements admission.ValidationInterface.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := podOf(a)
	if !ok {
		return nil
	}
	if isMirror(pod) {
		return refuseCredentials(a, pod)
	}
	account, err := p.account(ctx, a, pod)
	if err != nil {
		return err
	}
	return checkMountable(a, pod, account)
}

func podOf(a admission.Attributes) (*corev1.Pod, bool) {
	if a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetSubresource() != "" {
		return nil, false
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	return pod, ok
}

func (p *Plugin) account(ctx context.Context, a admission.Attributes, pod *corev1.Pod) (*corev1.ServiceAccount, error) {
	name := pod.Spec.ServiceAccountName
	account, err := p.find(ctx, a.GetNamespace(), name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: serviceaccount %q not found", a.GetNamespace(), name, name))
	case err != nil:
		return nil, apierrors.NewInternalError(fmt.Errorf("look up service account %s/%s: %w", a.GetNamespace(), name, err))
	}
	return account, nil
}

// wantsToken reports whether the token is mounted. The pod decides, then the account; the default is yes.
func wantsToken(pod *corev1.Pod, account *corev1.ServiceAccount) bool {
	switch {
	case pod.Spec.AutomountServiceAccountToken != nil:
		return *pod.Spec.AutomountServiceAccountToken
	case account.AutomountServiceAccountToken != nil:
		return *account.AutomountServiceAccountToken
	}
	return true
}
