//go:build linux

package node

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/hint"
)

// agentAnnotation on a node's Lease is the ID of the agent that holds it. The Lease's holderIdentity is the node's name, as
// for kubelets, and does not distinguish two agents of one name.
const agentAnnotation = "identity.lanyard.dev/agent"

const (
	// pollPeriod is how often an agent reads another agent's Lease to see whether it is renewed.
	pollPeriod = time.Second
	// minSilence is how long a Lease that looks expired must not be renewed before it is taken over. It is longer than the
	// time between two renewals: a holder whose clock is behind writes renewals that look old, but it does write them. A
	// Lease that has not expired is taken over only after it has.
	minSilence = renewPeriod + renewPeriod/4
)

// holder makes sure that one agent at a time uses a node's name: two machines of one host name would overwrite each other's
// Node again and again. The agent that holds the Lease keeps it. Another agent takes the Lease over only after it has seen
// for a while that it is not renewed.
type holder struct {
	leases coordinationclient.LeaseInterface
	nodes  corev1client.NodeInterface
	name   string
	agent  string // this agent's ID, the same after each start from the same root directory
	bootID string // the machine's, the same until the machine is started again
	clock  clock.Clock
}

// take returns once this agent may write the Lease: at once if it held the Lease before. It waits for an authority that
// cannot be reached. It returns an error if another agent renews the Lease, or if ctx ends.
func (h *holder) take(ctx context.Context) error {
	found, err := h.read(ctx)
	if err != nil || found == nil || h.isOwn(found) {
		return err
	}
	// Earlier versions of the agent did not annotate their Leases.
	ours := found.Annotations[agentAnnotation] == "" && h.isThisMachine(ctx)
	if !ours {
		klog.InfoS("Another agent holds the Lease of this node; waiting to see whether it renews it", "node", h.name)
	}
	for {
		if !ours {
			if found, err = h.awaitSilence(ctx, found); err != nil || found == nil {
				return err
			}
		}
		err = h.claim(ctx, found)
		if apierrors.IsConflict(err) {
			return h.errInUse() // the other agent has renewed it
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		klog.ErrorS(err, "Could not take over the Lease; trying again", "node", h.name)
		ours = false
	}
}

func (h *holder) isOwn(l *coordinationv1.Lease) bool {
	return l.Annotations[agentAnnotation] == h.agent
}

// read returns the Lease, or nil if there is none. It waits for an authority that cannot be reached.
func (h *holder) read(ctx context.Context) (*coordinationv1.Lease, error) {
	for delay := retryBackoff(10 * time.Second); ; {
		found, err := h.leases.Get(ctx, h.name, metav1.GetOptions{})
		switch {
		case err == nil:
			return found, nil
		case apierrors.IsNotFound(err):
			return nil, nil
		}
		klog.ErrorS(err, "Could not read the Lease of the node; trying again", append([]any{"node", h.name}, hintOn(err)...)...)
		if !sleep(ctx, h.clock, delay.Step()) {
			return nil, context.Cause(ctx)
		}
	}
}

// isThisMachine reports whether this machine, since it was last started, wrote the Node's status.
func (h *holder) isThisMachine(ctx context.Context) bool {
	node, err := h.nodes.Get(ctx, h.name, metav1.GetOptions{})
	return err == nil && h.bootID != "" && node.Status.NodeInfo.BootID == h.bootID
}

// awaitSilence returns the Lease once it has not been renewed for long enough, or nil once it is deleted. It measures with
// this machine's monotonic clock whether the Lease changes, because the clocks of two machines need not agree.
func (h *holder) awaitSilence(ctx context.Context, found *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	wait := minSilence
	if renewed := found.Spec.RenewTime; renewed != nil {
		wait = min(max(wait, renewed.Add(leaseDuration).Sub(h.clock.Now())), leaseDuration)
	}
	for since := h.clock.Now(); h.clock.Since(since) < wait; {
		if !sleep(ctx, h.clock, pollPeriod) {
			return nil, context.Cause(ctx)
		}
		began := h.clock.Now()
		now, err := h.read(ctx)
		switch {
		case err != nil || now == nil:
			return nil, err
		case now.ResourceVersion != found.ResourceVersion:
			return nil, h.errInUse()
		}
		// While the authority could not be reached, the other agent could not renew the Lease either.
		if away := h.clock.Since(began); away > pollPeriod {
			since = h.clock.Now()
		}
	}
	return found, nil
}

// claim makes this agent the holder of the Lease. It returns a conflict if the Lease has changed.
func (h *holder) claim(ctx context.Context, found *coordinationv1.Lease) error {
	mine := found.DeepCopy()
	h.mark(mine)
	mine.Spec.RenewTime = &metav1.MicroTime{Time: h.clock.Now()}
	_, err := h.leases.Update(ctx, mine, metav1.UpdateOptions{})
	return err
}

func (h *holder) mark(l *coordinationv1.Lease) {
	metav1.SetMetaDataAnnotation(&l.ObjectMeta, agentAnnotation, h.agent)
}

// keep returns a function that marks each renewal of the Lease as this agent's. If another agent holds the Lease, the
// function calls lost and returns an error: either both agents started at the same time and the other was first, or this
// agent did not renew the Lease for so long that the other took it over.
func (h *holder) keep(lost func(error)) lease.ProcessLeaseFunc {
	return func(l *coordinationv1.Lease) error {
		if l.Annotations[agentAnnotation] != "" && !h.isOwn(l) {
			err := h.errInUse()
			lost(err)
			return err
		}
		h.mark(l)
		return nil
	}
}

func (h *holder) errInUse() error {
	return hint.New(fmt.Errorf("another agent runs as node %q, and renews its Lease", h.name),
		"name this machine with --node-name, or end the other agent first")
}
