// Package orphans removes the pods of nodes that no longer exist, since no agent is left to end them and their tokens
// would live on.
//
// A node has to be missing for 40 seconds, and storage is asked before anything is removed. Pods of a node that is only
// out of reach stay: its object is there. Pods that were never bound need nobody: they go when they are deleted. Pods of
// processes name the machine they are on, which need not be a node; they live by their lease.
//
// Any number of replicas may run it: a pod is removed by its UID, and a second removal finds it gone.
package orphans

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/podannotation"
)

// Quarantine is how long a node must be missing.
const Quarantine = 40 * time.Second

// Controller removes pods. It listens, by PodFeed and NodeFeed, to two feeds.
type Controller struct {
	pods  rest.GracefulDeleter
	nodes rest.Getter
	clock clock.PassiveClock
	queue workqueue.TypedRateLimitingInterface[string]

	mu      sync.Mutex
	present map[string]bool
	missing map[string]time.Time // since when a node that has pods is not there
	on      map[types.NamespacedName]string
	byNode  map[string]map[types.NamespacedName]types.UID
}

// New returns a controller over the stores of pods and of nodes.
func New(pods rest.GracefulDeleter, nodes rest.Getter, c clock.WithTicker) *Controller {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Minute)
	return &Controller{
		pods: pods, nodes: nodes, clock: c,
		queue:   workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[string]{Clock: c}),
		present: map[string]bool{}, missing: map[string]time.Time{},
		on: map[types.NamespacedName]string{}, byNode: map[string]map[types.NamespacedName]types.UID{},
	}
}

// Run removes pods until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	controller.Work(ctx, c.queue, "remove the pods of a node that is gone", c.look)
}

func (c *Controller) look(ctx context.Context, node string) error {
	pods, since := c.orphans(node)
	if len(pods) == 0 {
		return nil
	}
	if left := since.Add(Quarantine).Sub(c.clock.Now()); left > 0 {
		c.queue.AddAfter(node, left)
		return nil
	}
	_, err := c.nodes.Get(request.WithNamespace(ctx, metav1.NamespaceNone), node, &metav1.GetOptions{})
	if err == nil {
		// The feed has yet to tell of it, or never will: a node that is soon gone again may not be told of at all.
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

// orphans are the pods of a node that is not there, and since when it is not.
func (c *Controller) orphans(node string) (map[types.NamespacedName]types.UID, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, ok := c.missing[node]
	if !ok {
		return nil, time.Time{}
	}
	return maps.Clone(c.byNode[node]), since
}

func (c *Controller) remove(ctx context.Context, key types.NamespacedName, uid types.UID, node string) error {
	now := &metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: &metav1.Preconditions{UID: &uid}}
	_, _, err := c.pods.Delete(request.WithNamespace(ctx, key.Namespace), key.Name, rest.ValidateAllObjectFunc, now)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("remove pod %s of node %s: %w", key, node, err)
	}
	klog.InfoS("Removed a pod whose node is gone", "pod", key, "uid", uid, "node", node)
	return nil
}

// NodeFeed listens to the feed of nodes.
func (c *Controller) NodeFeed() *NodeFeed { return &NodeFeed{c} }

// PodFeed listens to the feed of pods.
func (c *Controller) PodFeed() *PodFeed { return &PodFeed{c} }

// NodeFeed tells of nodes. It is a mirror.Listener.
type NodeFeed struct{ c *Controller }

// Set implements mirror.Listener.
func (f *NodeFeed) Set(obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.c.present[m.GetName()] = true
	delete(f.c.missing, m.GetName())
}

// Delete implements mirror.Listener.
func (f *NodeFeed) Delete(obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	delete(f.c.present, m.GetName())
	f.c.miss(m.GetName())
}

// miss begins to wait for a node that has pods and is not there.
func (c *Controller) miss(node string) {
	if _, known := c.missing[node]; known || c.present[node] || len(c.byNode[node]) == 0 {
		return
	}
	c.missing[node] = c.clock.Now()
	c.queue.AddAfter(node, Quarantine)
}

// PodFeed tells of pods. It is a mirror.Listener.
type PodFeed struct{ c *Controller }

// Set implements mirror.Listener.
func (f *PodFeed) Set(obj runtime.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" || podannotation.IsProcess(pod) {
		return
	}
	c, key, node := f.c, types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, pod.Spec.NodeName
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on[key] == node && c.byNode[node][key] == pod.UID {
		return
	}
	c.forget(key)
	c.on[key] = node
	if c.byNode[node] == nil {
		c.byNode[node] = map[types.NamespacedName]types.UID{}
	}
	c.byNode[node][key] = pod.UID
	if _, known := c.missing[node]; known {
		c.queue.Add(node)
	}
	c.miss(node)
}

// Delete implements mirror.Listener.
func (f *PodFeed) Delete(obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.c.forget(types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()})
}

func (c *Controller) forget(key types.NamespacedName) {
	node, ok := c.on[key]
	if !ok {
		return
	}
	delete(c.on, key)
	if delete(c.byNode[node], key); len(c.byNode[node]) == 0 {
		delete(c.byNode, node)
		delete(c.missing, node)
	}
}
