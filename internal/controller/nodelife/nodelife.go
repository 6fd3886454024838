package nodelife

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
)

const (
	// Name is who events come from.
	Name = "node-controller"
	// GracePeriod is how long a node counts as alive after its agent was last heard of.
	GracePeriod = 40 * time.Second
)

// Nodes is the part of the nodes' store that is used.
type Nodes interface {
	rest.Getter
	rest.Updater
}

// Config is what the controller works with.
type Config struct {
	Nodes Nodes
	// NodeStatus and PodStatus are subresources.
	NodeStatus, PodStatus rest.Updater
	Leases                rest.Getter
	Events                controller.Events
	Clock                 clock.WithTicker
}

// Controller watches over nodes. It listens, by NodeFeed, LeaseFeed and PodFeed, to three feeds.
type Controller struct {
	Config
	memory *memory
	queue  workqueue.TypedRateLimitingInterface[string]
}

// New returns a controller.
func New(c Config) *Controller {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 10*time.Second)
	return &Controller{
		Config: c, memory: newMemory(),
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[string]{Clock: c.Clock}),
	}
}

// Run watches over nodes until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	ctx = request.WithNamespace(ctx, metav1.NamespaceNone)
	controller.Work(ctx, c.queue, "watch over node", c.look)
}

func (c *Controller) look(ctx context.Context, name string) error {
	found, err := c.Nodes.Get(ctx, name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read node %s: %w", name, err)
	}
	node := found.(*corev1.Node)
	return errors.Join(c.watch(ctx, node), c.taint(ctx, node), c.markPods(ctx, node))
}

// watch gives the node up if its agent has not been heard of for too long, and else comes back when that may be so.
func (c *Controller) watch(ctx context.Context, node *corev1.Node) error {
	heard, version, ok := c.memory.heard(node.Name)
	if !ok {
		return nil
	}
	if left := heard.Add(GracePeriod).Sub(c.Clock.Now()); left > 0 {
		c.queue.AddAfter(node.Name, left)
		return nil
	}
	if controller.NodeReady(node) == corev1.ConditionUnknown {
		if !c.memory.disarm(node.Name, heard) {
			c.queue.Add(node.Name)
		}
		return nil
	}
	renewed, err := c.renewed(ctx, node.Name, version)
	if err != nil {
		return err
	}
	if renewed {
		// What the feed tells is behind. It counts from when this was seen.
		c.memory.hear(node.Name, c.Clock.Now())
		c.queue.AddAfter(node.Name, GracePeriod)
		return nil
	}
	return c.giveUp(ctx, node)
}

// renewed tells whether storage holds another version of the node's lease than was told last.
func (c *Controller) renewed(ctx context.Context, name, version string) (bool, error) {
	found, err := c.Leases.Get(request.WithNamespace(ctx, corev1.NamespaceNodeLease), name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the lease of node %s: %w", name, err)
	}
	return found.(*coordinationv1.Lease).ResourceVersion != version, nil
}

// giveUp writes that nothing is known of the node, unless it was written meanwhile.
func (c *Controller) giveUp(ctx context.Context, looked *corev1.Node) error {
	now := metav1.NewTime(c.Clock.Now())
	set := controller.Change(func(node *corev1.Node) {
		node.ResourceVersion = looked.ResourceVersion
		lose(&node.Status, now)
	})
	_, _, err := c.NodeStatus.Update(ctx, looked.Name, set, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return errors.Join(controller.ErrNotYet, err)
	case err != nil:
		return fmt.Errorf("give up node %s: %w", looked.Name, err)
	}
	c.Events.Event(looked, corev1.EventTypeNormal, "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady", looked.Name))
	return nil
}

// reported are the conditions that an agent reports regularly.
var reported = []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure}

// lose makes unknown what the agent reported, and that the node is ready in any case.
func lose(status *corev1.NodeStatus, now metav1.Time) {
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

// markPods says of the pods on a node that was lost that they are not ready, once: an agent that can still write its
// pods' status, if not its lease, knows better.
func (c *Controller) markPods(ctx context.Context, node *corev1.Node) error {
	if controller.NodeReady(node) != corev1.ConditionUnknown || c.memory.isMarked(node.Name) {
		return nil
	}
	var errs error
	for key, uid := range c.memory.podsOn(node.Name) {
		changed := false
		lost := controller.Change(func(pod *corev1.Pod) { changed = pod.UID == uid && unready(&pod.Status, metav1.NewTime(c.Clock.Now())) })
		written, _, err := c.PodStatus.Update(request.WithNamespace(ctx, key.Namespace), key.Name, lost,
			rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			errs = errors.Join(errs, fmt.Errorf("say of pod %s on node %s that it is not ready: %w", key, node.Name, err))
		case changed:
			c.Events.Event(written, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
		}
	}
	if errs == nil {
		c.memory.marked(node.Name)
	}
	return errs
}

// unready tells whether the pod was ready until now.
func unready(status *corev1.PodStatus, now metav1.Time) bool {
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
