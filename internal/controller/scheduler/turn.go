package scheduler

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/controller"
)

const (
	// LeaseName is the lease, in kube-system, by which replicas take turns.
	LeaseName = "lanyard-scheduler"

	turnLength = 15 * time.Second
	// turnMargin is how long before its end a turn is no longer used: how long a binding may take.
	turnMargin = 5 * time.Second
)

// Leases is the part of the leases' store that is used.
type Leases interface {
	rest.Updater
}

// turn is the right to give out host ports, for a while.
type turn struct {
	leases   Leases
	identity string
	clock    clock.PassiveClock

	taken time.Time // when this replica last took its turn
	// other is the lease as another replica wrote it last, and seen when this one first saw it. Its turn counts from
	// then: the times that replicas write are of clocks that may be apart, or be set.
	other coordinationv1.LeaseSpec
	seen  time.Time
}

// take returns once it is this replica's turn for turnMargin at least, or an error that is controller.ErrNotYet while
// it is another's.
func (t *turn) take(ctx context.Context) error {
	if !t.taken.IsZero() && t.clock.Since(t.taken) < turnLength-turnMargin {
		return nil
	}
	now := t.clock.Now()
	info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, stored runtime.Object) (runtime.Object, error) {
		return t.next(stored.(*coordinationv1.Lease), now)
	})
	ctx = request.WithNamespace(ctx, metav1.NamespaceSystem)
	_, _, err := t.leases.Update(ctx, LeaseName, info, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("take the turn to give out host ports: %w", err)
	}
	t.taken = now
	return nil
}

func (t *turn) next(stored *coordinationv1.Lease, now time.Time) (*coordinationv1.Lease, error) {
	spec := &stored.Spec
	if holder := ptr.Deref(spec.HolderIdentity, ""); holder != "" && holder != t.identity {
		if !equality.Semantic.DeepEqual(t.other, *spec) {
			t.other, t.seen = *spec.DeepCopy(), now
		}
		if t.clock.Since(t.seen) < turnLength {
			return nil, fmt.Errorf("it is that of %s: %w", holder, controller.ErrNotYet)
		}
	}
	mine := stored.DeepCopy()
	mine.Namespace, mine.Name = metav1.NamespaceSystem, LeaseName
	mine.Spec.HolderIdentity, mine.Spec.RenewTime = &t.identity, ptr.To(metav1.NewMicroTime(now))
	mine.Spec.LeaseDurationSeconds = ptr.To(int32(turnLength.Seconds()))
	return mine, nil
}

// claim makes sure that the host ports are free on the node, and stay so until the returned context's end. What the
// feeds have told may be behind another replica's turn, so storage is asked.
func (c *Controller) claim(ctx context.Context, node string, wanted []port) (context.Context, context.CancelFunc, error) {
	if err := c.turn.take(ctx); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithDeadline(ctx, time.Now().Add(turnMargin))
	list, err := c.Pods.List(request.WithNamespace(ctx, metav1.NamespaceAll), &internalversion.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node),
	})
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("list the pods of node %s: %w", node, err)
	}
	taken := ports{}
	for i := range list.(*corev1.PodList).Items {
		if pod := &list.(*corev1.PodList).Items[i]; !controller.Finished(pod) {
			taken.add(portsOf(&pod.Spec))
		}
	}
	if !taken.free(wanted) {
		cancel()
		return nil, nil, fmt.Errorf("another replica has given out the host ports on node %s: %w", node, controller.ErrNotYet)
	}
	return ctx, cancel, nil
}
