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
)

// agentAnnotation on a node's Lease names the agent that holds it. The holderIdentity cannot: it is the node's name, as that
// of every kubelet.
const agentAnnotation = "identity.lanyard.dev/agent"

const (
	// lookEvery is how often another's Lease is looked at, to see whether it is renewed.
	lookEvery = time.Second
	// silence is how long a Lease that seems to have ended must not be renewed before it is taken over. It outlasts the pause
	// between two renewals, so that a machine whose clock is behind is not taken for dead. One that has not ended is left
	// the time it has.
	silence = renewEvery + renewEvery/4
)

// holder keeps a node's name to one agent: two machines with one host name would overwrite each other's Node for ever. The
// agent that holds the Lease keeps it, and another takes it over only when it has seen that nobody renews it.
type holder struct {
	leases coordinationclient.LeaseInterface
	nodes  corev1client.NodeInterface
	name   string
	// agent is the same after every start from the same root directory, bootID on the same machine until its next start.
	agent, bootID string
	clock         clock.Clock
}

// take returns once the Lease is this agent's to write, at once if it was before. The error says that another agent lives, or
// that ctx has ended. An authority that cannot be reached is waited for.
func (h *holder) take(ctx context.Context) error {
	found, err := h.read(ctx)
	if err != nil || found == nil || h.isOwn(found) {
		return err
	}
	// Agents have not always annotated their Leases.
	former := found.Annotations[agentAnnotation] == "" && h.sameMachine(ctx)
	if !former {
		klog.InfoS("The Lease of this node is another agent's; waiting to see whether that one lives", "node", h.name)
	}
	for {
		if !former {
			if found, err = h.awaitSilence(ctx, found); err != nil || found == nil {
				return err
			}
		}
		err = h.claim(ctx, found)
		if apierrors.IsConflict(err) {
			return h.errInUse() // it was renewed meanwhile
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		klog.ErrorS(err, "Could not take over the Lease; trying again", "node", h.name)
		former = false
	}
}

func (h *holder) isOwn(l *coordinationv1.Lease) bool {
	return l.Annotations[agentAnnotation] == h.agent
}

// read returns the Lease, nil if there is none.
func (h *holder) read(ctx context.Context) (*coordinationv1.Lease, error) {
	for delay := pace(10 * time.Second); ; {
		found, err := h.leases.Get(ctx, h.name, metav1.GetOptions{})
		switch {
		case err == nil:
			return found, nil
		case apierrors.IsNotFound(err):
			return nil, nil
		}
		klog.ErrorS(err, "Could not read the Lease of the node; trying again", append([]any{"node", h.name}, hintOn(err)...)...)
		if !pause(ctx, h.clock, delay.Step()) {
			return nil, context.Cause(ctx)
		}
	}
}

// sameMachine tells whether the Node was last reported by this very machine, since its last start.
func (h *holder) sameMachine(ctx context.Context) bool {
	node, err := h.nodes.Get(ctx, h.name, metav1.GetOptions{})
	return err == nil && h.bootID != "" && node.Status.NodeInfo.BootID == h.bootID
}

// awaitSilence returns the Lease once it was not renewed for long enough, or nil once it is gone. What counts is whether it
// changes while this agent looks on, by this machine's monotonic clock: two machines' clocks need not agree.
func (h *holder) awaitSilence(ctx context.Context, found *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	wait := silence
	if renewed := found.Spec.RenewTime; renewed != nil {
		wait = min(max(wait, renewed.Add(leaseDuration).Sub(h.clock.Now())), leaseDuration)
	}
	for since := h.clock.Now(); h.clock.Since(since) < wait; {
		if !pause(ctx, h.clock, lookEvery) {
			return nil, context.Cause(ctx)
		}
		asked := h.clock.Now()
		now, err := h.read(ctx)
		switch {
		case err != nil || now == nil:
			return nil, err
		case now.ResourceVersion != found.ResourceVersion:
			return nil, h.errInUse()
		}
		// While the authority was away, nobody could renew.
		if away := h.clock.Since(asked); away > lookEvery {
			since = h.clock.Now()
		}
	}
	return found, nil
}

// claim writes this agent into the Lease, unless it has changed.
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

// keep marks each renewal as this agent's. It refuses to overwrite another's, and tells lost: either both agents started at
// once and the other was first, or this one was silent for so long that it was taken for dead.
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
	return &Error{
		Err:  fmt.Errorf("another agent runs as node %q, and renews its Lease", h.name),
		Next: "name this machine with --node-name, or end the other agent first",
	}
}
