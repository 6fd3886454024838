// Package scheduler binds pods to nodes: each pod that names no node to a ready node that it may run on, the one with
// the fewest pods.
//
// A pod may run on a node that is ready, that matches its node selector and its required node affinity, whose taints it
// tolerates, and on which its host ports are free. The scheduler does not consider requests of CPU and memory, priorities,
// affinity between pods, spreading, or volumes. A pod that fits on no node waits, and its condition contains the reason; it is
// tried again when a node or the pod changes.
//
// Any number of replicas may run it. A pod can be bound once, so the attempts of the other replicas fail and are
// dropped. Only host ports need coordination, since two replicas could assign a port to two pods at once: one replica
// is elected, by a Lease, and assigns them.
package scheduler

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/nodeaccess"
)

// Component is the source of this controller's events.
const Component = corev1.DefaultSchedulerName

// Config configures a scheduler.
type Config struct {
	// Client is the client of bootstrap.Scheduler.
	Client kubernetes.Interface
	// Pods is the index of pods by node. It listens to the feed of pods before this controller does.
	Pods   *nodeaccess.Pods
	Events controller.Events
	Clock  clock.PassiveClock
	// Identity is the name of this replica in the election; "" if there is only one replica, which needs no election.
	Identity string
}

// Controller binds pods. It listens to the feeds of pods and of nodes.
type Controller struct {
	Config
	state    *state
	election *election // nil if there is only one replica
	queue    *controller.Queue[types.NamespacedName]
}

// New returns a scheduler.
func New(config Config) *Controller {
	c := &Controller{
		Config: config, state: newState(config.Pods),
		queue: controller.NewQueue[types.NamespacedName]("bind pod to a node", 50*time.Millisecond, 10*time.Second, clock.RealClock{}),
	}
	if config.Identity != "" {
		c.election = &election{client: config.Client, identity: config.Identity, durations: usualDurations, elected: func() { c.retry(true) }}
	}
	return c
}

// Run binds pods until ctx ends.
func (c *Controller) Run(ctx context.Context) { c.queue.Run(ctx, c.schedule) }

func (c *Controller) schedule(ctx context.Context, key types.NamespacedName) error {
	pod, err := c.Client.CoreV1().Pods(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !isPending(pod) {
		return nil
	}
	needs := requirementsOf(pod)
	node, refusals := c.state.choose(needs)
	if node == "" {
		return c.report(ctx, pod, explain(refusals))
	}
	if c.election != nil && len(needs.ports) > 0 {
		c.election.join(ctx)
		claimed, release, err := c.election.claim(ctx, node, needs.ports)
		if err != nil {
			return err
		}
		defer release()
		ctx = claimed
	}
	return c.bind(ctx, pod, node)
}

// bind binds the pod, as identified by its UID, to the node.
func (c *Controller) bind(ctx context.Context, pod *corev1.Pod, node string) error {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	err := c.Client.CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		// Another replica bound the pod, it is being deleted, or its name now belongs to another pod. The feed reports
		// it.
		return nil
	case err != nil:
		return fmt.Errorf("bind pod %s/%s to node %s: %w", pod.Namespace, pod.Name, node, err)
	}
	c.Events.Event(pod, corev1.EventTypeNormal, "Scheduled", fmt.Sprintf("Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, node))
	return nil
}

// report writes into the pod's conditions why it has no node. The replica that wrote the condition records the event,
// so there is one event for each reason.
func (c *Controller) report(ctx context.Context, read *corev1.Pod, why string) error {
	unschedulable := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: why,
		LastTransitionTime: metav1.NewTime(c.Clock.Now()),
	}
	if !controller.SetPodCondition(read.Status.DeepCopy(), unschedulable) {
		return nil
	}
	changed := false
	pods := c.Client.CoreV1().Pods(read.Namespace)
	_, err := controller.Change(ctx, read.Name, pods.Get, pods.UpdateStatus, func(pod *corev1.Pod) bool {
		changed = pod.UID == read.UID && isPending(pod) && controller.SetPodCondition(&pod.Status, unschedulable)
		return changed
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write into pod %s/%s why it has no node: %w", read.Namespace, read.Name, err)
	}
	if changed {
		c.Events.Event(read, corev1.EventTypeWarning, "FailedScheduling", why)
	}
	return nil
}

// retry queues the pods that wait for a node, or only those with host ports.
func (c *Controller) retry(onlyPorts bool) {
	for _, key := range c.state.waitingPods(onlyPorts) {
		c.queue.Add(key)
	}
}

// PodListener returns the listener for the feed of pods.
func (c *Controller) PodListener() *PodListener { return &PodListener{c} }

// NodeListener returns the listener for the feed of nodes.
func (c *Controller) NodeListener() *NodeListener { return &NodeListener{c} }

// PodListener listens to the feed of pods.
type PodListener struct{ c *Controller }

// Set implements mirror.Listener.
func (l *PodListener) Set(obj runtime.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	if l.c.state.setPod(key, pod) {
		l.c.retry(true)
	}
	if isPending(pod) {
		l.c.queue.Add(key)
	}
}

// Delete implements mirror.Listener.
func (l *PodListener) Delete(obj runtime.Object) {
	if key, ok := controller.KeyOf(obj); ok && l.c.state.deletePod(key) {
		l.c.retry(true)
	}
}

// NodeListener listens to the feed of nodes.
type NodeListener struct{ c *Controller }

// Set implements mirror.Listener.
func (l *NodeListener) Set(obj runtime.Object) {
	if node, ok := obj.(*corev1.Node); ok && l.c.state.setNode(node) {
		l.c.retry(false)
	}
}

// Delete implements mirror.Listener.
func (l *NodeListener) Delete(obj runtime.Object) {
	if node, ok := controller.KeyOf(obj); ok {
		l.c.state.deleteNode(node.Name)
		l.c.retry(false)
	}
}
