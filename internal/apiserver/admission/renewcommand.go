package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/podannotation"
)

// renewCommand refuses a pod whose annotation podannotation.OnRenew names a command, unless the user may run commands
// in the pods of the namespace. The agent of the pod's node runs that command in the pod. The registry keeps the
// annotation from being changed later.
type renewCommand struct {
	*admission.Handler
	authorizer authorizer.UnconditionalAuthorizer
}

var _ admission.ValidationInterface = &renewCommand{}

func newRenewCommand(az authorizer.UnconditionalAuthorizer) *renewCommand {
	return &renewCommand{Handler: admission.NewHandler(admission.Create, admission.Update), authorizer: az}
}

// Validate implements admission.ValidationInterface. It covers updates as well, so that it does not depend on the
// registry.
func (p *renewCommand) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
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
	allowed, err := allows(ctx, p.authorizer, authorizer.AttributesRecord{
		User: who, Verb: "create", APIGroup: corev1.GroupName, APIVersion: "v1", Resource: "pods", Subresource: "exec",
		Namespace: a.GetNamespace(), Name: pod.Name, ResourceRequest: true,
	})
	switch {
	case err != nil:
		return err
	case !allowed:
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
