package token

import (
	"context"
	"fmt"
	"time"
)

// DeletionGrace is how long after its deletionTimestamp an object that still exists keeps its tokens, as in Kubernetes.
// A pod's deletionTimestamp is the end of its grace period, so a pod that shuts down in order can still speak.
const DeletionGrace = time.Minute

// Anchor is what a token's life hangs on, as it is now.
type Anchor struct {
	UID string
	// DeletionTimestamp is zero unless the object is being deleted.
	DeletionTimestamp time.Time
	// ServiceAccountName and NodeName are spec.serviceAccountName and spec.nodeName of a pod; NodeName is empty until it
	// is scheduled.
	ServiceAccountName, NodeName string
}

// Anchors tells what exists. It is asked on every verification, so it must answer from memory. An error means that the
// memory is not known to be fresh enough to trust either answer; the token is then refused with ErrAnchorsStale.
// found is false for an object that does not exist, and must be as soon as its deletion has been acknowledged.
type Anchors interface {
	ServiceAccount(ctx context.Context, namespace, name string) (a Anchor, found bool, err error)
	Pod(ctx context.Context, namespace, name string) (a Anchor, found bool, err error)
	Secret(ctx context.Context, namespace, name string) (a Anchor, found bool, err error)
	Node(ctx context.Context, name string) (a Anchor, found bool, err error)
}

// checkAnchors returns nil if everything the token is bound to is still there, the node that a pod-bound token names
// included. Kubernetes does not ask for that node; here its deletion ends what was handed to the machine. There is no
// DeletionGrace then, since the machine itself can keep its Node by a finalizer.
func checkAnchors(ctx context.Context, anchors Anchors, k *Kubernetes, now time.Time) error {
	account := bond{"service account", k.Namespace, k.ServiceAccount, ErrAccountGone, now}
	if err := account.verdict(anchors.ServiceAccount(ctx, k.Namespace, k.ServiceAccount.Name)); err != nil {
		return err
	}
	if k.Pod != nil {
		if err := checkPod(ctx, anchors, k, now); err != nil {
			return err
		}
	}
	if k.Secret != nil {
		secret := bond{"secret", k.Namespace, *k.Secret, ErrSecretGone, now}
		if err := secret.verdict(anchors.Secret(ctx, k.Namespace, k.Secret.Name)); err != nil {
			return err
		}
	}
	if k.Node == nil {
		return nil
	}
	node := bond{"node", "", *k.Node, ErrNodeGone, now}
	a, found, err := anchors.Node(ctx, k.Node.Name)
	if err := node.verdict(a, found, err); err != nil {
		return err
	}
	if k.Pod != nil && !a.DeletionTimestamp.IsZero() {
		return node.refuse("is being deleted")
	}
	return nil
}

// checkPod also holds the pod's spec against the claims. Both fields are fixed for a pod's life, so this can only fail
// for a token that should never have been issued.
func checkPod(ctx context.Context, anchors Anchors, k *Kubernetes, now time.Time) error {
	pod := bond{"pod", k.Namespace, *k.Pod, ErrPodGone, now}
	a, found, err := anchors.Pod(ctx, k.Namespace, k.Pod.Name)
	if err := pod.verdict(a, found, err); err != nil {
		return err
	}
	if a.ServiceAccountName != k.ServiceAccount.Name {
		return pod.refuse("runs as another service account")
	}
	if k.Node != nil && a.NodeName != "" && a.NodeName != k.Node.Name {
		return pod.refuse("runs on another node")
	}
	return nil
}

// bond is one object a token is bound to, and the reason to give once it is gone.
type bond struct {
	kind, namespace string
	ref             Ref
	gone            error
	now             time.Time
}

// verdict judges what Anchors answered.
func (b bond) verdict(a Anchor, found bool, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrAnchorsStale, b.name(), err)
	case !found:
		return b.refuse("does not exist")
	case a.UID != b.ref.UID:
		return b.refuse("is another object of the same name")
	case !a.DeletionTimestamp.IsZero() && a.DeletionTimestamp.Before(b.now.Add(-DeletionGrace)):
		return b.refuse("was deleted more than a minute ago")
	}
	return nil
}

func (b bond) refuse(why string) error { return fmt.Errorf("%w: %s %s", b.gone, b.name(), why) }

// name quotes nothing that is not printable: a verified token's names were checked against real objects on issue, but
// not necessarily by this program.
func (b bond) name() string {
	if b.namespace == "" {
		return fmt.Sprintf("%s %q", b.kind, b.ref.Name)
	}
	return fmt.Sprintf("%s %q", b.kind, b.namespace+"/"+b.ref.Name)
}
