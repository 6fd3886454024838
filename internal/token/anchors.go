package token

import (
	"context"
	"fmt"
	"time"
)

// DeletionGrace is the time after its deletionTimestamp during which an object that still exists keeps its tokens, as in
// Kubernetes. The deletionTimestamp of a pod is the end of its grace period, so a pod can use its token while it shuts down.
const DeletionGrace = time.Minute

// Anchor is the current state of an object that a token is bound to.
type Anchor struct {
	UID string
	// DeletionTimestamp is zero unless the object is being deleted.
	DeletionTimestamp time.Time
	// ServiceAccountName and NodeName are fields of a pod's spec. NodeName is empty until the pod is scheduled.
	ServiceAccountName, NodeName string
}

// Anchors looks up the objects that tokens are bound to. It is called on every verification, so it must answer from
// memory. An error means that the memory may be stale; the token is then refused with ErrAnchorsStale. found is false if
// the object does not exist, from the moment when its deletion has been acknowledged.
type Anchors interface {
	ServiceAccount(ctx context.Context, namespace, name string) (a Anchor, found bool, err error)
	Pod(ctx context.Context, namespace, name string) (a Anchor, found bool, err error)
	Secret(ctx context.Context, namespace, name string) (a Anchor, found bool, err error)
	Node(ctx context.Context, name string) (a Anchor, found bool, err error)
}

// checkAnchors returns nil if every object that the token is bound to still exists. For a token that is bound to a pod,
// this includes the pod's node, which Kubernetes does not check: deleting a Node revokes the tokens that its machine got.
// There is no DeletionGrace for that node, because the machine could keep its Node by a finalizer.
func checkAnchors(ctx context.Context, anchors Anchors, k *Kubernetes, now time.Time) error {
	account := boundObject{"service account", k.Namespace, k.ServiceAccount, ErrAccountGone, now}
	if err := account.check(anchors.ServiceAccount(ctx, k.Namespace, k.ServiceAccount.Name)); err != nil {
		return err
	}
	if k.Pod != nil {
		if err := checkPod(ctx, anchors, k, now); err != nil {
			return err
		}
	}
	if k.Secret != nil {
		secret := boundObject{"secret", k.Namespace, *k.Secret, ErrSecretGone, now}
		if err := secret.check(anchors.Secret(ctx, k.Namespace, k.Secret.Name)); err != nil {
			return err
		}
	}
	if k.Node == nil {
		return nil
	}
	node := boundObject{"node", "", *k.Node, ErrNodeGone, now}
	a, found, err := anchors.Node(ctx, k.Node.Name)
	if err := node.check(a, found, err); err != nil {
		return err
	}
	if k.Pod != nil && !a.DeletionTimestamp.IsZero() {
		return node.refuse("is being deleted")
	}
	return nil
}

// checkPod also compares the pod's spec with the claims. Neither field changes during a pod's life, so the comparison fails
// only for a token that should not have been issued.
func checkPod(ctx context.Context, anchors Anchors, k *Kubernetes, now time.Time) error {
	pod := boundObject{"pod", k.Namespace, *k.Pod, ErrPodGone, now}
	a, found, err := anchors.Pod(ctx, k.Namespace, k.Pod.Name)
	if err := pod.check(a, found, err); err != nil {
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

// boundObject is an object that a token is bound to, and the error to return when it no longer exists.
type boundObject struct {
	kind, namespace string
	ref             Ref
	gone            error
	now             time.Time
}

// check returns nil if the object, as Anchors returned it, is the one that the token is bound to.
func (b boundObject) check(a Anchor, found bool, err error) error {
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

func (b boundObject) refuse(why string) error { return fmt.Errorf("%w: %s %s", b.gone, b.name(), why) }

// name returns the kind and the name of the object. The name is quoted: another program may have issued the token, and
// may not have checked the names in it.
func (b boundObject) name() string {
	if b.namespace == "" {
		return fmt.Sprintf("%s %q", b.kind, b.ref.Name)
	}
	return fmt.Sprintf("%s %q", b.kind, b.namespace+"/"+b.ref.Name)
}
