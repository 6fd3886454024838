//go:build linux

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
	// observePeriod is how often the agent looks at the machine and the runtime. It writes an unchanged status once in each
	// reportPeriod: the Lease shows more often that the agent lives.
	observePeriod = 10 * time.Second
	reportPeriod  = 5 * time.Minute

	leaseDuration = 40 * time.Second
	renewPeriod   = leaseDuration / 4
)

// observe returns the status of the node. The times of transitions of the former status are kept.
type observe func(ctx context.Context, former *corev1.NodeStatus) corev1.NodeStatus

// registration keeps the Node object and its Lease up to date.
type registration struct {
	client kubernetes.Interface
	// heartbeats writes the Lease. When that fails several times, reconnect is called: the connection may be dead without
	// having been closed.
	heartbeats kubernetes.Interface
	reconnect  func()
	name       string
	labels     map[string]string
	observe    observe
	holder     *holder
	clock      clock.Clock

	reported time.Time // when the status was last written
}

// run registers the node, trying until it succeeds, calls registered once, and then keeps the Node and its Lease up to date
// until ctx ends. It returns an error if another agent has taken the node's Lease.
func (r *registration) run(outer context.Context, registered func()) error {
	ctx, end := context.WithCancelCause(outer)
	defer end(nil)
	backoff := retryBackoff(10 * time.Second)
	for {
		err := r.register(ctx)
		if err == nil {
			break
		}
		klog.ErrorS(err, "Could not register the node; trying again", append([]any{"node", r.name}, hintOn(err)...)...)
		if !sleep(ctx, r.clock, backoff.Step()) {
			return nil
		}
	}
	registered()
	go r.lease(end).Run(ctx)
	for sleep(ctx, r.clock, wait.Jitter(observePeriod, 0.1)) {
		if err := r.report(ctx); err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Could not report the status of the node", "node", r.name)
		}
	}
	if outer.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// hintOn returns what to do about an error that a further attempt does not solve, as a key and a value for the log.
func hintOn(err error) []any {
	if !apierrors.IsUnauthorized(err) {
		return nil
	}
	return []any{"hint", "the authority refuses this node's certificate: if the node was evicted, end the agent, remove the directory pki in its root directory, and join again with a bootstrap token"}
}

// retryBackoff returns the waits between attempts at something that another machine must bring back. They grow from a fifth
// of a second to longest, with jitter.
func retryBackoff(longest time.Duration) wait.Backoff {
	return wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 7, Cap: longest}
}

// sleep waits for d. It returns false if ctx ends first.
func sleep(ctx context.Context, c clock.Clock, d time.Duration) bool {
	timer := c.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
		return true
	}
}

// register creates the Node, or takes over an existing one.
func (r *registration) register(ctx context.Context) error {
	status := r.observe(ctx, &corev1.NodeStatus{})
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.name, Labels: r.allLabels(status)}, Status: status}
	created, err := r.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return r.takeOver(ctx)
	}
	if err != nil {
		return fmt.Errorf("register node %s: %w", r.name, err)
	}
	klog.InfoS("Registered the node", "node", r.name)
	r.reported = r.clock.Now()
	if len(created.Status.Conditions) == 0 {
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
		if _, err = r.client.CoreV1().Nodes().Update(ctx, wanted, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("label node %s: %w", r.name, err)
		}
	}
	r.reported = time.Time{}
	return r.report(ctx)
}

// report writes the status if it has changed, or was last written long ago. It registers the node again if the Node was
// deleted.
func (r *registration) report(ctx context.Context) error {
	found, err := r.client.CoreV1().Nodes().Get(ctx, r.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return r.register(ctx)
	}
	if err != nil {
		return fmt.Errorf("read node %s: %w", r.name, err)
	}
	wanted := found.DeepCopy()
	wanted.Status = r.observe(ctx, &found.Status)
	if sameButForHeartbeats(&found.Status, &wanted.Status) && r.clock.Since(r.reported) < reportPeriod {
		return nil
	}
	if _, _, err := nodeutil.PatchNodeStatus(r.client.CoreV1(), types.NodeName(r.name), found, wanted); err != nil {
		return fmt.Errorf("report the status of node %s: %w", r.name, err)
	}
	r.reported = r.clock.Now()
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

// lease returns the controller that renews the Lease. It calls lost when another agent has taken the Lease.
func (r *registration) lease(lost func(error)) lease.Controller {
	return lease.NewController(r.clock, r.heartbeats, r.name, int32(leaseDuration/time.Second), r.reconnect, renewPeriod, r.name, corev1.NamespaceNodeLease, r.holder.keep(lost))
}
