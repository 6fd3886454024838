// Package onrenew admits a pod whose annotation on-renew names a command only from a user who may run commands in the pods
// of the namespace.
//
// It does not know when the command runs, nor that the annotation never changes: the pod registry holds that.
package onrenew

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/podannotation"
)

// Plugin is the admission plugin.
type Plugin struct {
	*admission.Handler
	authorizer authorizer.UnconditionalAuthorizer
}

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New(az authorizer.UnconditionalAuthorizer) *Plugin {
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update), authorizer: az}
}

// Validate implements admission.ValidationInterface. It sees updates too, so that no way of writing a pod gets past it.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != corev1.Resource("pods") {
		return nil
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok || !runs(pod) {
		return nil // a subresource of another kind, or nothing to run
	}
	if old, ok := a.GetOldObject().(*corev1.Pod); ok && old.Annotations[podannotation.OnRenew] == pod.Annotations[podannotation.OnRenew] {
		return nil
	}
	who := a.GetUserInfo()
	if who == nil {
		return forbid(a, "the user is not known")
	}
	if _, isNode := nodeaccess.Identify(who.GetName(), who.GetGroups()); isNode {
		return forbid(a, "a node may not set the annotation %s to a command", podannotation.OnRenew)
	}
	decision, _, err := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: who, Verb: "create", APIGroup: corev1.GroupName, APIVersion: "v1", Resource: "pods", Subresource: "exec",
		Namespace: a.GetNamespace(), Name: pod.Name, ResourceRequest: true,
	})
	switch {
	case err != nil:
		return err
	case decision != authorizer.DecisionAllow:
		return forbid(a, "user %q may not create pods/exec in the namespace %q, which the annotation %s needs to run a command", who.GetName(), a.GetNamespace(), podannotation.OnRenew)
	}
	return nil
}

// runs reports whether an agent would run a command in the pod.
func runs(pod *corev1.Pod) bool {
	how, err := podannotation.ParseNotice(pod.Annotations[podannotation.OnRenew])
	return err == nil && len(how.Command) > 0
}

func forbid(a admission.Attributes, format string, args ...any) error {
	return admission.NewForbidden(a, fmt.Errorf(format, args...))
}
