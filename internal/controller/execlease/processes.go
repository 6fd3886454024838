// Package execlease removes the pods that stand for processes once nobody vouches for the process any more, and with
// them the tokens the process had.
//
// A supervisor that ends in order removes its pod itself. This is for the one that was killed: it is not there to renew
// the lease in its pod's annotations, and the pod goes when that ends. A process that has finished needs no vouching;
// its pod goes at once.
//
// Any number of replicas may run it. A pod is removed as it was looked at, by UID and version, so that a renewal that
// came in between wins. A lease that is too far ahead is bounded from when a replica first saw it, which is later after
// a restart, but never for good.
package execlease

import (
	"context"
	"fmt"
	"sync"
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
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/podannotation"
)

// Name is who events come from.
const Name = "process-controller"

// Store is the part of the pods' store that is used.
type Store interface {
	rest.Getter
	rest.GracefulDeleter
}

// Controller removes the pods of processes. It listens to the feed of pods.
type Controller struct {
	pods   Store
	events controller.Events
	clock  clock.PassiveClock
	queue  workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu      sync.Mutex
	leases  map[types.NamespacedName]lease
	started time.Time // when Run began; zero before
}

// lease is a value of the annotation, and when it was first seen.
type lease struct {
	uid  types.UID
	text string
	seen time.Time
	// inherited says that it is from before Run. Its supervisor may not have been able to renew it: nobody was there.
	inherited bool
}

// New returns a controller over the store of pods.
func New(pods Store, events controller.Events, c clock.WithTicker) *Controller {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, 10*time.Second)
	return &Controller{
		pods: pods, events: events, clock: c, leases: map[types.NamespacedName]lease{},
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{Clock: c}),
	}
}

// Run removes pods until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	c.mu.Lock()
	c.started = c.clock.Now()
	c.mu.Unlock()
	controller.Work(ctx, c.queue, "remove the pod of a process that nobody vouches for", c.look)
}

// Set implements mirror.Listener.
func (c *Controller) Set(obj runtime.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || !podannotation.IsProcess(pod) {
		return
	}
	// A pod is looked at when it could first be over. Whether a renewal has moved that is found out then.
	c.queue.AddAfter(keyOf(pod), c.left(pod))
}

// Delete implements mirror.Listener.
func (c *Controller) Delete(obj runtime.Object) {
	if m, err := meta.Accessor(obj); err == nil {
		c.forget(keyOf(m))
	}
}

func (c *Controller) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leases, key)
}

func keyOf(pod metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: pod.GetNamespace(), Name: pod.GetName()}
}

// left is how long the pod may stay, at most 0 if it may not.
func (c *Controller) left(pod *corev1.Pod) time.Duration {
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

// seen returns when the pod's present lease was first seen, and the earliest that it may end: a supervisor that was waiting
// for this process to come back has some time to be heard.
func (c *Controller) seen(pod *corev1.Pod, now time.Time) (seen, earliest time.Time) {
	key, text := keyOf(pod), pod.Annotations[podannotation.Lease]
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

// look removes the pod if it is over, and else comes back when it could be.
func (c *Controller) look(ctx context.Context, key types.NamespacedName) error {
	ctx = request.WithNamespace(ctx, key.Namespace)
	found, err := c.pods.Get(ctx, key.Name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		c.forget(key)
		return nil
	}
	if err != nil {
		return err
	}
	pod := found.(*corev1.Pod)
	if !podannotation.IsProcess(pod) {
		return nil
	}
	if left := c.left(pod); left > 0 {
		c.queue.AddAfter(key, left)
		return nil
	}
	return c.remove(ctx, pod)
}

func (c *Controller) remove(ctx context.Context, pod *corev1.Pod) error {
	now := &metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0), Preconditions: &metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion},
	}
	_, gone, err := c.pods.Delete(ctx, pod.Name, rest.ValidateAllObjectFunc, now)
	switch {
	case apierrors.IsNotFound(err):
		c.forget(keyOf(pod))
		return nil
	case apierrors.IsConflict(err):
		return fmt.Errorf("pod %s/%s has changed: %w", pod.Namespace, pod.Name, controller.ErrNotYet)
	case err != nil:
		return fmt.Errorf("remove pod %s/%s: %w", pod.Namespace, pod.Name, err)
	case gone:
		c.tell(pod)
	}
	return nil
}

func (c *Controller) tell(pod *corev1.Pod) {
	if controller.Finished(pod) {
		c.events.Event(pod, corev1.EventTypeNormal, "ProcessEnded", "The process has ended; its pod is removed, and its tokens with it")
		return
	}
	c.events.Event(pod, corev1.EventTypeWarning, "ProcessLost", "The supervisor of the process did not renew its lease; its pod is removed, and its tokens with it")
}
