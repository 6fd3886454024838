package scheduler

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
)

// Name is who events come from.
const Name = corev1.DefaultSchedulerName

// Pods is the part of the pods' store that is used.
type Pods interface {
	rest.Getter
	rest.Lister
}

// Config is what a scheduler works with.
type Config struct {
	Pods Pods
	// Status and Binding are subresources of pods.
	Status  rest.Updater
	Binding rest.NamedCreater
	Events  controller.Events
	Clock   clock.PassiveClock
	// Leases, where other replicas schedule too, is the store in which they take turns under different Identities.
	Leases   Leases
	Identity string
}

// Controller binds pods.
type Controller struct {
	Config
	state *state
	turn  *turn // nil where nobody else schedules
	queue workqueue.TypedRateLimitingInterface[types.NamespacedName]
}

// New returns a scheduler.
func New(c Config) *Controller {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, 10*time.Second)
	s := &Controller{Config: c, state: newState(), queue: workqueue.NewTypedRateLimitingQueue(limiter)}
	if c.Leases != nil {
		s.turn = &turn{leases: c.Leases, identity: c.Identity, clock: c.Clock}
	}
	return s
}

// Run binds pods until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	controller.Work(ctx, c.queue, "bind pod to a node", c.place)
}

func (c *Controller) place(ctx context.Context, key types.NamespacedName) error {
	ctx = request.WithNamespace(ctx, key.Namespace)
	found, err := c.Pods.Get(ctx, key.Name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	pod := found.(*corev1.Pod)
	if !wants(pod) {
		return nil
	}
	wanted := demandOf(pod)
	node, refusals := c.state.choose(wanted)
	if node == "" {
		return c.report(ctx, pod, explain(refusals))
	}
	if c.turn != nil && len(wanted.ports) > 0 {
		claimed, done, err := c.claim(ctx, node, wanted.ports)
		if err != nil {
			return err
		}
		defer done()
		ctx = claimed
	}
	return c.bind(ctx, pod, node)
}

// bind puts the pod that was looked at on the node.
func (c *Controller) bind(ctx context.Context, pod *corev1.Pod, node string) error {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	_, err := c.Binding.Create(ctx, pod.Name, binding, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		// Someone else bound it, it is going, or another has its name. That is told by the feed.
		return nil
	case err != nil:
		return fmt.Errorf("bind pod %s/%s to node %s: %w", pod.Namespace, pod.Name, node, err)
	}
	c.Events.Event(pod, corev1.EventTypeNormal, "Scheduled", fmt.Sprintf("Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, node))
	return nil
}

// report tells why the pod that was looked at has no node, once for each reason: whoever writes the condition tells.
func (c *Controller) report(ctx context.Context, looked *corev1.Pod, why string) error {
	told := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: why,
		LastTransitionTime: metav1.NewTime(c.Clock.Now()),
	}
	if !controller.SetPodCondition(looked.Status.DeepCopy(), told) {
		return nil
	}
	changed := false
	set := controller.Change(func(pod *corev1.Pod) {
		changed = pod.UID == looked.UID && wants(pod) && controller.SetPodCondition(&pod.Status, told)
	})
	_, _, err := c.Status.Update(ctx, looked.Name, set, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("say of pod %s/%s why it has no node: %w", looked.Namespace, looked.Name, err)
	}
	if changed {
		c.Events.Event(looked, corev1.EventTypeWarning, "FailedScheduling", why)
	}
	return nil
}

// PodFeed listens to the feed of pods.
func (c *Controller) PodFeed() *PodFeed { return &PodFeed{c} }

// NodeFeed listens to the feed of nodes.
func (c *Controller) NodeFeed() *NodeFeed { return &NodeFeed{c} }

// PodFeed tells a scheduler of pods. It is a mirror.Listener.
type PodFeed struct{ c *Controller }

// Set implements mirror.Listener.
func (f *PodFeed) Set(obj runtime.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	if f.c.state.setPod(key, pod) {
		f.c.again(true)
	}
	if wants(pod) {
		f.c.queue.Add(key)
	}
}

// Delete implements mirror.Listener.
func (f *PodFeed) Delete(obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	if f.c.state.deletePod(types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}) {
		f.c.again(true)
	}
}

// NodeFeed tells a scheduler of nodes. It is a mirror.Listener.
type NodeFeed struct{ c *Controller }

// Set implements mirror.Listener.
func (f *NodeFeed) Set(obj runtime.Object) {
	if node, ok := obj.(*corev1.Node); ok && f.c.state.setNode(node) {
		f.c.again(false)
	}
}

// Delete implements mirror.Listener.
func (f *NodeFeed) Delete(obj runtime.Object) {
	if m, err := meta.Accessor(obj); err == nil {
		f.c.state.deleteNode(m.GetName())
		f.c.again(false)
	}
}

// again looks once more at the pods that wait, only those that want host ports if nothing else has changed.
func (c *Controller) again(onlyPorts bool) {
	for _, key := range c.state.unplaced(onlyPorts) {
		c.queue.Add(key)
	}
}
