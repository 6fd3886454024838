package noderestriction

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/outage"
)

// audienceVerb is the verb with which a node may request tokens for an audience that no pod names. The audience is the
// resource, and the account the name. Credential providers pull images with such tokens.
const audienceVerb = "request-serviceaccounts-token-audience"

// token allows a node to request tokens that are bound to one of its pods, for the account of the pod and an audience
// that the pod names.
func (p *Plugin) token(ctx context.Context, node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create || a.GetSubresource() != "token" {
		return nil
	}
	request, ok := a.GetObject().(*authenticationv1.TokenRequest)
	if !ok {
		return unexpected(a, a.GetObject())
	}
	ref := request.Spec.BoundObjectRef
	switch {
	case ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "":
		return forbid(a, "node requested token not bound to a pod")
	case ref.UID == "":
		return forbid(a, "node requested token with a pod binding without a uid")
	}
	pod, err := p.Pod(ctx, a.GetNamespace(), ref.Name)
	if err != nil {
		return err
	}
	switch {
	case ref.UID != pod.UID:
		return forbid(a, "the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	case pod.Spec.NodeName != node:
		return forbid(a, "node requested token bound to a pod scheduled on a different node")
	case pod.Spec.ServiceAccountName != a.GetName():
		return forbid(a, "node requested token bound to a pod running with a different service account")
	}
	err = p.audience(ctx, a, request.Spec.Audiences, pod)
	if err == nil || outage.Of(err) != nil {
		return err
	}
	return admission.NewForbidden(a, err)
}

func (p *Plugin) audience(ctx context.Context, a admission.Attributes, audiences []string, pod *corev1.Pod) error {
	wanted := ""
	switch len(audiences) {
	case 0:
	case 1:
		wanted = audiences[0]
	default:
		return errors.New("node may only request 0 or 1 audiences")
	}
	if p.hasTokenVolume(pod, wanted) {
		return nil
	}
	decision, _, err := p.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: audienceVerb, Namespace: pod.Namespace, APIGroup: corev1.GroupName, APIVersion: "v1",
		Resource: wanted, Name: pod.Spec.ServiceAccountName, ResourceRequest: true,
	})
	if err != nil || decision == authorizer.DecisionAllow {
		return err
	}
	return fmt.Errorf("audience %q not found in pod spec volume, %s is not authorized to request tokens for this audience",
		wanted, a.GetUserInfo().GetName())
}

// hasTokenVolume reports whether a volume of the pod holds a token for the audience. An empty audience means the API server.
func (p *Plugin) hasTokenVolume(pod *corev1.Pod, audience string) bool {
	for i := range pod.Spec.Volumes {
		projected := pod.Spec.Volumes[i].Projected
		if projected == nil {
			continue
		}
		for _, source := range projected.Sources {
			if t := source.ServiceAccountToken; t != nil && p.orDefaultAudience(t.Audience) == p.orDefaultAudience(audience) {
				return true
			}
		}
	}
	return false
}

// orDefaultAudience replaces an empty audience with the audience of the API server, if it has only one.
func (p *Plugin) orDefaultAudience(audience string) string {
	if audience == "" && len(p.Audiences) == 1 {
		return p.Audiences[0]
	}
	return audience
}
