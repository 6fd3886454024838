// Package podgc deletes pods that no agent and no supervisor can end, since their tokens would live on: the pods of
// nodes that no longer exist, and the pods of processes whose supervisor was killed.
//
// Any number of replicas may run it.
package podgc

import (
	"context"
	"errors"
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
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/podannotation"
)

// Quarantine is how long a node must be missing before its pods are deleted.
const Quarantine = 40 * time.Second

// Orphans deletes the pods of nodes that no longer exist.
//
// Before it deletes pods, it reads from the API that their node is gone. The pods of a node that is only unreachable
// stay, since the Node object exists. A pod that was never bound goes when it is deleted, and so needs nothing. A pod
// of a process names the machine that it is on, which need not be a node; Processes deletes it. Pods are deleted by
// UID, so a second replica finds them gone.
type Orphans struct {
	client corev1client.CoreV1Interface
	pods   *nodeaccess.Pods
	clock  clock.PassiveClock
	queue  *controller.Queue[string]

	mu      sync.Mutex
	present map[string]bool
	missing map[string]time.Time // nodes that do not exist and have pods, and since when
}

// NewOrphans returns a controller that writes through the client of bootstrap.PodGarbageCollector. pods is the index of
// pods by node; it listens to the feed of pods before this controller does.
func NewOrphans(client kubernetes.Interface, pods *nodeaccess.Pods, c clock.WithTicker) *Orphans {
	return &Orphans{
		client: client.CoreV1(), pods: pods, clock: c,
		queue:   controller.NewQueue[string]("remove the pods of a node that is gone", 50*time.Millisecond, time.Minute, c),
		present: map[string]bool{}, missing: map[string]time.Time{},
	}
}

// Run deletes pods until ctx ends.
func (c *Orphans) Run(ctx context.Context) { c.queue.Run(ctx, c.check) }

func (c *Orphans) check(ctx context.Context, node string) error {
	pods, since := c.orphans(node)
	if len(pods) == 0 {
		return nil
	}
	if left := since.Add(Quarantine).Sub(c.clock.Now()); left > 0 {
		c.queue.AddAfter(node, left)
		return nil
	}
	_, err := c.client.Nodes().Get(ctx, node, metav1.GetOptions{})
	if err == nil {
		// The feed has not reported the node yet. It never does if the node is deleted again soon, so look again later.
		c.queue.AddAfter(node, Quarantine)
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for node %s: %w", node, err)
	}
	var errs error
	for key, uid := range pods {
		errs = errors.Join(errs, c.remove(ctx, key, uid, node))
	}
	return errs
}

// orphans returns the pods of a node that does not exist, and since when it does not.
func (c *Orphans) orphans(node string) (map[types.NamespacedName]types.UID, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, missing := c.missing[node]
	if !missing {
		return nil, time.Time{}
	}
	pods := c.podsOn(node)
	if len(pods) == 0 {
		delete(c.missing, node)
	}
	return pods, since
}

func (c *Orphans) podsOn(node string) map[types.NamespacedName]types.UID {
	pods := map[types.NamespacedName]types.UID{}
	for key, pod := range c.pods.On(node) {
		if !pod.Process {
			pods[key] = pod.UID
		}
	}
	return pods
}

func (c *Orphans) remove(ctx context.Context, key types.NamespacedName, uid types.UID, node string) error {
	now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: &metav1.Preconditions{UID: &uid}}
	err := c.client.Pods(key.Namespace).Delete(ctx, key.Name, now)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("remove pod %s of node %s: %w", key, node, err)
	}
	klog.InfoS("Removed a pod whose node is gone", "pod", key, "uid", uid, "node", node)
	return nil
}

// watch begins to wait for a node that does not exist although pods are bound to it. The caller holds mu.
func (c *Orphans) watch(node string) {
	if _, known := c.missing[node]; known || c.present[node] || len(c.podsOn(node)) == 0 {
		return
	}
	c.missing[node] = c.clock.Now()
	c.queue.AddAfter(node, Quarantine)
}

// Nodes returns the listener for the feed of nodes.
func (c *Orphans) Nodes() *NodeListener { return &NodeListener{c} }

// Pods returns the listener for the feed of pods.
func (c *Orphans) Pods() *PodListener { return &PodListener{c} }

// NodeListener listens to the feed of nodes.
type NodeListener struct{ c *Orphans }

// Set implements mirror.Listener.
func (l *NodeListener) Set(obj runtime.Object) {
	node, ok := controller.KeyOf(obj)
	if !ok {
		return
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.present[node.Name] = true
	delete(l.c.missing, node.Name)
}

// Delete implements mirror.Listener.
func (l *NodeListener) Delete(obj runtime.Object) {
	node, ok := controller.KeyOf(obj)
	if !ok {
		return
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	delete(l.c.present, node.Name)
	l.c.watch(node.Name)
}

// PodListener listens to the feed of pods.
type PodListener struct{ c *Orphans }

// Set implements mirror.Listener.
func (l *PodListener) Set(obj runtime.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" || podannotation.IsProcess(pod) {
		return
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	switch _, missing := l.c.missing[pod.Spec.NodeName]; {
	case missing:
		l.c.queue.Add(pod.Spec.NodeName)
	case !l.c.present[pod.Spec.NodeName]:
		l.c.watch(pod.Spec.NodeName)
	}
}

// Delete implements mirror.Listener.
func (l *PodListener) Delete(obj runtime.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if len(l.c.podsOn(pod.Spec.NodeName)) == 0 {
		delete(l.c.missing, pod.Spec.NodeName)
	}
}
