package node

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/apimachinery/lease"
	nodeutil "k8s.io/component-helpers/node/util"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	// observeEvery is how often the machine and the runtime are looked at, reportEvery how often the Node's status is
	// written where nothing changed: the Lease says more often that the agent lives.
	observeEvery = 10 * time.Second
	reportEvery  = 5 * time.Minute

	leaseDuration = 40 * time.Second
	renewEvery    = leaseDuration / 4
)

// observe returns the status of the node as it is now. It keeps the times of transitions of what was.
type observe func(ctx context.Context, was *corev1.NodeStatus) corev1.NodeStatus

// registration keeps the Node object and its Lease.
type registration struct {
	client kubernetes.Interface
	// heartbeats writes the Lease. When that fails again and again, reconnect is called: a connection may have died without a
	// word.
	heartbeats kubernetes.Interface
	reconnect  func()
	name       string
	labels     map[string]string
	observe    observe
	holder     *holder
	clock      clock.Clock

	reported time.Time
	node     *corev1.Node // as last read or written
}

// run registers the node, trying until it succeeds, and keeps it true until ctx ends. registered is called once. The error
// says that another agent has the node's Lease.
func (r *registration) run(outer context.Context, registered func(*corev1.Node)) error {
	ctx, end := context.WithCancelCause(outer)
	defer end(nil)
	backoff := pace(10 * time.Second)
	for {
		err := r.register(ctx)
		if err == nil {
			break
		}
		klog.ErrorS(err, "Could not register the node; trying again", append([]any{"node", r.name}, hintOn(err)...)...)
		if !pause(ctx, r.clock, backoff.Step()) {
			return nil
		}
	}
	registered(r.node)
	go r.lease(end).Run(ctx)
	for pause(ctx, r.clock, wait.Jitter(observeEvery, 0.1)) {
		if err := r.report(ctx); err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Could not report the status of the node", "node", r.name)
		}
	}
	if outer.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// hintOn says what to do about a refusal that trying again does not mend.
func hintOn(err error) []any {
	if !apierrors.IsUnauthorized(err) {
		return nil
	}
	return []any{"hint", "the authority refuses this node's certificate: if the node was evicted, end the agent, remove the directory pki in its root directory, and join again with a bootstrap token"}
}

// pace is how long to wait between attempts at what others must come back for: at first a fifth of a second, then ever
// longer, up to longest, and never quite the same.
func pace(longest time.Duration) wait.Backoff {
	return wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 7, Cap: longest}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, c clock.Clock, d time.Duration) bool {
	timer := c.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
		return true
	}
}

// register makes the Node, or takes over the one that is there.
func (r *registration) register(ctx context.Context) error {
	status := r.observe(ctx, &corev1.NodeStatus{})
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.name, Labels: r.allLabels(status)}, Status: status}
	made, err := r.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return r.takeOver(ctx)
	}
	if err != nil {
		return fmt.Errorf("register node %s: %w", r.name, err)
	}
	klog.InfoS("Registered the node", "node", r.name)
	r.node, r.reported = made, r.clock.Now()
	if len(made.Status.Conditions) == 0 {
		return r.report(ctx)
	}
	return nil
}

func (r *registration) allLabels(status corev1.NodeStatus) map[string]string {
	labels := map[string]string{
		corev1.LabelHostname: r.name, corev1.LabelOSStable: status.NodeInfo.OperatingSystem, corev1.LabelArchStable: status.NodeInfo.Architecture,
	}
	maps.Copy(labels, r.labels)
	return labels
}

func (r *registration) takeOver(ctx context.Context) error {
	found, err := r.client.CoreV1().Nodes().Get(ctx, r.name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read node %s: %w", r.name, err)
	}
	wanted := found.DeepCopy()
	if wanted.Labels == nil {
		wanted.Labels = map[string]string{}
	}
	maps.Copy(wanted.Labels, r.allLabels(r.observe(ctx, &found.Status)))
	if !equality.Semantic.DeepEqual(found.Labels, wanted.Labels) {
		if wanted, err = r.client.CoreV1().Nodes().Update(ctx, wanted, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("label node %s: %w", r.name, err)
		}
	}
	r.node, r.reported = wanted, time.Time{}
	return r.report(ctx)
}

// report writes the status when it changed, or was not written for long. A node that somebody deleted is registered again.
func (r *registration) report(ctx context.Context) error {
	fresh, err := r.client.CoreV1().Nodes().Get(ctx, r.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return r.register(ctx)
	}
	if err != nil {
		return fmt.Errorf("read node %s: %w", r.name, err)
	}
	r.node = fresh
	wanted := fresh.DeepCopy()
	wanted.Status = r.observe(ctx, &fresh.Status)
	if sameButForHeartbeats(&fresh.Status, &wanted.Status) && r.clock.Since(r.reported) < reportEvery {
		return nil
	}
	written, _, err := nodeutil.PatchNodeStatus(r.client.CoreV1(), types.NodeName(r.name), fresh, wanted)
	if err != nil {
		return fmt.Errorf("report the status of node %s: %w", r.name, err)
	}
	r.node, r.reported = written, r.clock.Now()
	return nil
}

func sameButForHeartbeats(a, b *corev1.NodeStatus) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	for _, status := range []*corev1.NodeStatus{a, b} {
		for i := range status.Conditions {
			status.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
	}
	return equality.Semantic.DeepEqual(a, b)
}

// lease says that the agent lives. lost is called when another agent has the Lease.
func (r *registration) lease(lost func(error)) lease.Controller {
	return lease.NewController(r.clock, r.heartbeats, r.name, int32(leaseDuration/time.Second), r.reconnect, renewEvery, r.name, corev1.NamespaceNodeLease, r.holder.keep(lost))
}
