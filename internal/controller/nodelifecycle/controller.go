// Package nodelifecycle watches the heartbeats of nodes. It marks nodes whose agent has stopped, and keeps the taints
// that Kubernetes derives from a node's state.
//
// An agent renews the Lease of its node. If a Lease is not renewed for 40 seconds, the conditions of the node become
// Unknown and its pods not ready. No pod is deleted, since the machine may still run its containers out of reach. A
// node that never had a Lease is not watched: it was created by hand.
//
// Any number of replicas may run it. Each measures by its own clock when a Lease was renewed, so no clocks are
// compared. Before a node is marked, its Lease is read from the API, and the node is written in the version that was
// read or not at all. The replica that wrote the node records the event; the same write by another replica has no
// effect.
package nodelifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/nodeaccess"
)

const (
	// Component is the source of this controller's events.
	Component = "node-controller"
	// GracePeriod is how long a node is treated as alive after the last renewal of its Lease.
	GracePeriod = 40 * time.Second
)

// Config configures the controller.
type Config struct {
	// Client is the client of bootstrap.NodeController.
	Client kubernetes.Interface
	// Pods is the index of pods by node.
	Pods   *nodeaccess.Pods
	Events controller.Events
	Clock  clock.WithTicker
}

// Controller watches nodes. It listens to the feeds of nodes and of leases.
type Controller struct {
	Config
	heartbeats *heartbeats
	queue      *controller.Queue[string]
}

// New returns a controller.
func New(c Config) *Controller {
	return &Controller{
		Config: c, heartbeats: newHeartbeats(),
		queue: controller.NewQueue[string]("watch over node", 50*time.Millisecond, 10*time.Second, c.Clock),
	}
}

// Run watches nodes until ctx ends.
func (c *Controller) Run(ctx context.Context) { c.queue.Run(ctx, c.check) }

func (c *Controller) check(ctx context.Context, name string) error {
	node, err := c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read node %s: %w", name, err)
	}
	return errors.Join(c.checkHeartbeat(ctx, node), c.taint(ctx, node), c.markPods(ctx, node))
}

// checkHeartbeat marks the node if its Lease has not been renewed for too long, and otherwise queues it for the time at
// which that may be so.
func (c *Controller) checkHeartbeat(ctx context.Context, node *corev1.Node) error {
	last, version, ok := c.heartbeats.last(node.Name)
	if !ok {
		return nil
	}
	if left := last.Add(GracePeriod).Sub(c.Clock.Now()); left > 0 {
		c.queue.AddAfter(node.Name, left)
		return nil
	}
	if controller.NodeReady(node) == corev1.ConditionUnknown {
		if !c.heartbeats.dequeue(node.Name, last) {
			c.queue.Add(node.Name)
		}
		return nil
	}
	renewed, err := c.renewed(ctx, node.Name, version)
	if err != nil {
		return err
	}
	if renewed {
		// The feed is behind. The renewal is recorded as if it had been made now.
		c.heartbeats.record(node.Name, c.Clock.Now())
		c.queue.AddAfter(node.Name, GracePeriod)
		return nil
	}
	return c.markUnknown(ctx, node)
}

// renewed reports whether the API has another version of the node's Lease than the feed reported last.
func (c *Controller) renewed(ctx context.Context, name, version string) (bool, error) {
	lease, err := c.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the lease of node %s: %w", name, err)
	}
	return lease.ResourceVersion != version, nil
}

// markUnknown writes that the state of the node is unknown, unless the node was written since it was read.
func (c *Controller) markUnknown(ctx context.Context, read *corev1.Node) error {
	node := read.DeepCopy()
	setUnknown(&node.Status, metav1.NewTime(c.Clock.Now()))
	_, err := c.Client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return errors.Join(controller.ErrNotYet, err)
	case err != nil:
		return fmt.Errorf("mark node %s as unknown: %w", read.Name, err)
	}
	c.Events.Event(read, corev1.EventTypeNormal, "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady", read.Name))
	return nil
}

// reported are the conditions that an agent reports regularly.
var reported = []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure}

// setUnknown sets the reported conditions to Unknown. It adds the condition Ready if the agent never reported it.
func setUnknown(status *corev1.NodeStatus, now metav1.Time) {
	for _, kind := range reported {
		is := condition(status, kind)
		switch {
		case is != nil && is.Status != corev1.ConditionUnknown:
			is.Status, is.Reason, is.Message, is.LastTransitionTime = corev1.ConditionUnknown, "NodeStatusUnknown", "Agent stopped posting node status.", now
		case is == nil && kind == corev1.NodeReady:
			status.Conditions = append(status.Conditions, corev1.NodeCondition{
				Type: kind, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated", Message: "Agent never posted node status.", LastTransitionTime: now,
			})
		}
	}
}

func condition(status *corev1.NodeStatus, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			return &status.Conditions[i]
		}
	}
	return nil
}

// markPods sets the pods on a node in state Unknown to not ready, once: an agent that can still write the status of its
// pods, but not its Lease, knows their state better. Pods of processes are left out, since their supervisors report
// their state.
func (c *Controller) markPods(ctx context.Context, node *corev1.Node) error {
	if controller.NodeReady(node) != corev1.ConditionUnknown || c.heartbeats.arePodsMarked(node.Name) {
		return nil
	}
	var errs error
	for key, bound := range c.Pods.On(node.Name) {
		if bound.Finished || bound.Process {
			continue
		}
		changed := false
		pods := c.Client.CoreV1().Pods(key.Namespace)
		written, err := controller.Change(ctx, key.Name, pods.Get, pods.UpdateStatus, func(pod *corev1.Pod) bool {
			changed = pod.UID == bound.UID && setNotReady(&pod.Status, metav1.NewTime(c.Clock.Now()))
			return changed
		})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			errs = errors.Join(errs, fmt.Errorf("mark pod %s on node %s as not ready: %w", key, node.Name, err))
		case changed:
			c.Events.Event(written, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
		}
	}
	if errs == nil {
		c.heartbeats.setPodsMarked(node.Name)
	}
	return errs
}

// setNotReady sets the condition Ready to False and reports whether it was True before.
func setNotReady(status *corev1.PodStatus, now metav1.Time) bool {
	for _, is := range status.Conditions {
		if is.Type == corev1.PodReady && is.Status == corev1.ConditionTrue {
			return controller.SetPodCondition(status, corev1.PodCondition{
				Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "NodeNotReady", Message: "Node is not ready",
				LastTransitionTime: now, ObservedGeneration: is.ObservedGeneration,
			})
		}
	}
	return false
}

// Nodes returns the listener for the feed of nodes.
func (c *Controller) Nodes() *NodeListener { return &NodeListener{c} }

// Leases returns the listener for the feed of leases.
func (c *Controller) Leases() *LeaseListener { return &LeaseListener{c} }

// NodeListener listens to the feed of nodes.
type NodeListener struct{ c *Controller }

// Set implements mirror.Listener.
func (l *NodeListener) Set(obj runtime.Object) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	unknown := controller.NodeReady(node) == corev1.ConditionUnknown
	if l.c.heartbeats.setNode(node.Name, unknown, l.c.Clock.Now()) || !hasTaints(node) {
		l.c.queue.Add(node.Name)
	}
}

// Delete implements mirror.Listener.
func (l *NodeListener) Delete(obj runtime.Object) {
	if node, ok := controller.KeyOf(obj); ok {
		l.c.heartbeats.deleteNode(node.Name)
	}
}

// LeaseListener listens to the feed of leases.
type LeaseListener struct{ c *Controller }

// Set implements mirror.Listener.
func (l *LeaseListener) Set(obj runtime.Object) {
	lease, ok := obj.(*coordinationv1.Lease)
	if !ok || lease.Namespace != corev1.NamespaceNodeLease {
		return
	}
	if l.c.heartbeats.setLease(lease.Name, lease.ResourceVersion, lease.Spec.RenewTime, l.c.Clock.Now()) {
		l.c.queue.Add(lease.Name)
	}
}

// Delete implements mirror.Listener.
func (l *LeaseListener) Delete(obj runtime.Object) {
	if lease, ok := controller.KeyOf(obj); ok && lease.Namespace == corev1.NamespaceNodeLease {
		l.c.heartbeats.deleteLease(lease.Name)
	}
}
