package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/token"
)

var errBeingDeleted = errors.New("the object is being deleted, and gets no new tokens")

// bind resolves the object a token is to hang on. It must exist, not be in deletion, have the UID asked for, and, if a
// pod, run as the account.
func (r *TokenREST) bind(ctx context.Context, namespace, account string, ref *authenticationv1.BoundObjectReference) (token.Request, error) {
	var bound token.Request
	if ref == nil {
		return bound, nil
	}
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	// As in Kubernetes the version is not looked at, and may be left out.
	switch gvk.GroupKind() {
	case schema.GroupKind{Kind: "Pod"}:
		return r.bindPod(ctx, namespace, account, ref)
	case schema.GroupKind{Kind: "Secret"}:
		secret, found, err := r.Anchors.Secret(ctx, namespace, ref.Name)
		bound.Secret, err = resolve(ref, "secrets", secret, found, err)
		return bound, err
	case schema.GroupKind{Kind: "Node"}:
		node, found, err := r.Anchors.Node(ctx, ref.Name)
		bound.Node, err = resolve(ref, "nodes", node, found, err)
		return bound, err
	}
	return bound, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount to object of type %s: a v1 Pod, Secret or Node is needed", gvk.String()))
}

// bindPod also takes in the node the pod runs on, where that exists.
func (r *TokenREST) bindPod(ctx context.Context, namespace, account string, ref *authenticationv1.BoundObjectReference) (token.Request, error) {
	var bound token.Request
	pod, found, err := r.Anchors.Pod(ctx, namespace, ref.Name)
	// A pod that shuts down needs tokens until the end of its grace period, which is its deletionTimestamp.
	if pod.DeletionTimestamp.After(r.Clock.Now()) {
		pod.DeletionTimestamp = time.Time{}
	}
	if bound.Pod, err = resolve(ref, "pods", pod, found, err); err != nil {
		return bound, err
	}
	if pod.ServiceAccountName != account {
		return bound, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account))
	}
	if pod.NodeName == "" {
		return bound, nil
	}
	node, found, err := r.Anchors.Node(ctx, pod.NodeName)
	if err != nil {
		return bound, outage.New(err)
	}
	// A pod may name a node that is not registered. There is no UID to bind to then, so no claim.
	if found {
		if !node.DeletionTimestamp.IsZero() { // the token would be refused
			return bound, apierrors.NewConflict(corev1.Resource("nodes"), pod.NodeName, errBeingDeleted)
		}
		bound.Node = &token.Ref{Name: pod.NodeName, UID: node.UID}
	}
	return bound, nil
}

func resolve(ref *authenticationv1.BoundObjectReference, resource string, found token.Anchor, ok bool, err error) (*token.Ref, error) {
	switch {
	case err != nil:
		return nil, outage.New(err)
	case !ok:
		return nil, apierrors.NewNotFound(corev1.Resource(resource), ref.Name)
	case ref.UID != "" && string(ref.UID) != found.UID:
		return nil, apierrors.NewConflict(corev1.Resource(resource), ref.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	case !found.DeletionTimestamp.IsZero():
		return nil, apierrors.NewConflict(corev1.Resource(resource), ref.Name, errBeingDeleted)
	}
	return &token.Ref{Name: ref.Name, UID: found.UID}, nil
}
