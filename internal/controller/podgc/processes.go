package podgc

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/podannotation"
)

// ProcessComponent is the source of the events about processes.
const ProcessComponent = "process-controller"

// Processes deletes the pods of processes once their lease has ended, and with them the tokens of the process. It
// listens to the feed of pods.
//
// A supervisor that ends in order deletes its pod itself. A supervisor that was killed does not renew the lease in the
// annotations of its pod. The pod of a process that has finished needs no lease and is deleted at once.
//
// A pod is deleted in the version that was read, so that a renewal in between wins. A lease that ends too far in the
// future is bounded from the time at which a replica first saw it. After a restart that is later, but the bound always
// exists.
type Processes struct {
	pods   corev1client.PodsGetter
	events controller.Events
	clock  clock.PassiveClock
	queue  *controller.Queue[types.NamespacedName]

	mu      sync.Mutex
	leases  map[types.NamespacedName]lease
	started time.Time // when Run began; zero before
}

// lease is a value of the annotation, and when it was first seen.
type lease struct {
	uid  types.UID
	text string
	seen time.Time
	// inherited reports that the value was seen before Run. The supervisor may have been unable to renew it, because no
	// server was there.
	inherited bool
}

// NewProcesses returns a controller that writes through the client of bootstrap.PodGarbageCollector.
func NewProcesses(client kubernetes.Interface, events controller.Events, c clock.WithTicker) *Processes {
	return &Processes{
		pods: client.CoreV1(), events: events, clock: c, leases: map[types.NamespacedName]lease{},
		queue: controller.NewQueue[types.NamespacedName]("remove the pod of a process whose lease has ended", 50*time.Millisecond, 10*time.Second, c),
	}
}

// Run deletes pods until ctx ends.
func (c *Processes) Run(ctx context.Context) {
	c.mu.Lock()
	c.started = c.clock.Now()
	c.mu.Unlock()
	c.queue.Run(ctx, c.check)
}

// Set implements mirror.Listener.
func (c *Processes) Set(obj runtime.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || !podannotation.IsProcess(pod) {
		return
	}
	// The pod is examined when its lease could end first. If the lease has been renewed by then, it is queued again.
	c.queue.AddAfter(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, c.left(pod))
}

// Delete implements mirror.Listener.
func (c *Processes) Delete(obj runtime.Object) {
	if key, ok := controller.KeyOf(obj); ok {
		c.forget(key)
	}
}

func (c *Processes) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leases, key)
}

// left returns how long the pod may stay; 0 or less if it may not.
func (c *Processes) left(pod *corev1.Pod) time.Duration {
	if controller.Finished(pod) {
		return 0
	}
	now := c.clock.Now()
	seen, earliest := c.seen(pod, now)
	end := podannotation.LeaseEnd(pod, seen)
	if end.Before(earliest) {
		end = earliest
	}
	return end.Sub(now)
}

// seen returns when the pod's present lease was first seen, and the earliest time at which it may end: a supervisor
// that waited for the server to return gets some time to renew it.
func (c *Processes) seen(pod *corev1.Pod, now time.Time) (seen, earliest time.Time) {
	key, text := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, pod.Annotations[podannotation.Lease]
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.leases[key]
	if known.uid != pod.UID || known.text != text {
		known = lease{uid: pod.UID, text: text, seen: now, inherited: c.started.IsZero()}
		c.leases[key] = known
	}
	switch {
	case !known.inherited:
		return known.seen, time.Time{}
	case c.started.IsZero():
		return known.seen, now.Add(podannotation.FirstLease)
	}
	return known.seen, c.started.Add(podannotation.FirstLease)
}

// check deletes the pod if its lease has ended, and otherwise queues it for the time at which the lease could end.
func (c *Processes) check(ctx context.Context, key types.NamespacedName) error {
	pod, err := c.pods.Pods(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		c.forget(key)
		return nil
	}
	if err != nil {
		return err
	}
	if !podannotation.IsProcess(pod) {
		return nil
	}
	if left := c.left(pod); left > 0 {
		c.queue.AddAfter(key, left)
		return nil
	}
	return c.remove(ctx, key, pod)
}

func (c *Processes) remove(ctx context.Context, key types.NamespacedName, pod *corev1.Pod) error {
	now := controller.IfUnchanged(pod)
	now.GracePeriodSeconds = ptr.To[int64](0)
	err := c.pods.Pods(key.Namespace).Delete(ctx, key.Name, now)
	switch {
	case apierrors.IsNotFound(err):
		c.forget(key)
		return nil
	case apierrors.IsConflict(err):
		return fmt.Errorf("pod %s has changed: %w", key, controller.ErrNotYet)
	case err != nil:
		return fmt.Errorf("remove pod %s: %w", key, err)
	case len(pod.Finalizers) > 0:
		return nil // it is still there
	case controller.Finished(pod):
		c.events.Event(pod, corev1.EventTypeNormal, "ProcessEnded", "The process has ended; its pod is removed, and its tokens with it")
	default:
		c.events.Event(pod, corev1.EventTypeWarning, "ProcessLost", "The supervisor of the process did not renew its lease; its pod is removed, and its tokens with it")
	}
	return nil
}
