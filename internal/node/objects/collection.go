package objects

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

// firstListTimeout is how long a reader waits for a watch that has just begun, before it gets the object itself.
const firstListTimeout = 500 * time.Millisecond

// forbiddenRetries returns the back-off of reads that the authority forbids. Right after a pod is bound, an authority may
// not know yet that the pod is on this node.
func forbiddenRetries() wait.Backoff {
	return wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 5}
}

// object is a *corev1.Secret, *corev1.ConfigMap or *corev1.ServiceAccount.
type object interface {
	metav1.Object
	comparable
}

// resource describes how to read objects of one type.
type resource[T object] struct {
	kind    string // in messages, as kubelets write it
	plural  string // in URLs
	example T
	get     func(ctx context.Context, namespace, name string) (T, error)
	// isImmutable reports whether the object can no longer change.
	isImmutable func(T) bool
}

// collection keeps objects of one type.
type collection[T object] struct {
	ctx      context.Context // ends all watches
	client   cache.Getter
	resource resource[T]
	changed  func(key)

	mu    sync.Mutex
	items map[key]*item[T]
}

// item is an object and the pods that hold it.
type item[T object] struct {
	object  *watched[T]
	holders map[types.UID]bool
	// stop ends the watch. It is nil while there is no watch, as for an immutable object.
	stop context.CancelFunc
}

func newCollection[T object](ctx context.Context, client cache.Getter, r resource[T], changed func(key)) *collection[T] {
	return &collection[T]{ctx: ctx, client: client, resource: r, changed: changed, items: map[key]*item[T]{}}
}

func (c *collection[T]) hold(k key, pod types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.items[k]
	if it == nil {
		it = &item[T]{holders: map[types.UID]bool{}}
		it.object = newWatched(func(now T) { c.onChange(k, it, now) })
		c.items[k] = it
	}
	it.holders[pod] = true
	// An immutable object is not watched, but it may have been deleted and created again before this pod came.
	if it.stop == nil {
		c.watch(k, it)
	}
}

func (c *collection[T]) release(k key, pod types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.items[k]
	if it == nil {
		return
	}
	delete(it.holders, pod)
	if len(it.holders) > 0 {
		return
	}
	delete(c.items, k)
	if it.stop != nil {
		it.stop()
	}
}

// onChange ends the watch of an immutable object, and notifies the listeners.
func (c *collection[T]) onChange(k key, it *item[T], now T) {
	var none T
	if now != none && c.resource.isImmutable(now) {
		c.mu.Lock()
		if it.stop != nil {
			it.stop()
			it.stop = nil
		}
		c.mu.Unlock()
	}
	c.changed(k)
}

// watch begins to watch the object, and no other: a node may not list. c.mu is held.
func (c *collection[T]) watch(k key, it *item[T]) {
	ctx, stop := context.WithCancel(c.ctx)
	it.stop = stop
	reflector := cache.NewReflectorWithOptions(
		cache.NewListWatchFromClient(c.client, c.resource.plural, k.namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, k.Name)),
		c.resource.example, it.object, cache.ReflectorOptions{Name: c.resource.kind + " " + k.namespace + "/" + k.Name},
	)
	go reflector.RunWithContext(ctx)
}

// find returns the object that pods hold, nil if none does.
func (c *collection[T]) find(k key) *watched[T] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if it := c.items[k]; it != nil {
		return it.object
	}
	return nil
}

// read returns the object from memory once its watch has begun, and otherwise gets it from the authority.
func (c *collection[T]) read(ctx context.Context, k key) (T, error) {
	o := c.find(k)
	if o == nil {
		return c.get(ctx, k, nil)
	}
	timer := time.NewTimer(firstListTimeout)
	defer timer.Stop()
	select {
	case <-o.synced:
		return c.fromMemory(o, k)
	case <-ctx.Done():
		var none T
		return none, c.failure(k, ctx.Err())
	case <-timer.C:
		return c.get(ctx, k, o)
	}
}

func (c *collection[T]) fromMemory(o *watched[T], k key) (T, error) {
	found, ok := o.get()
	if !ok {
		return found, c.notFound(k)
	}
	return found, nil
}

// get gets the object from the authority, and tries again if that forbids it. It returns the object from memory if the watch
// has seen it meanwhile. o may be nil.
func (c *collection[T]) get(ctx context.Context, k key, o *watched[T]) (T, error) {
	var synced <-chan struct{}
	if o != nil {
		synced = o.synced
	}
	for retry := forbiddenRetries(); ; {
		found, err := c.resource.get(ctx, k.namespace, k.Name)
		switch {
		case err == nil:
			return found, nil
		case apierrors.IsNotFound(err):
			return found, c.notFound(k)
		case !apierrors.IsForbidden(err) || retry.Steps == 0:
			var none T
			return none, c.failure(k, err)
		}
		timer := time.NewTimer(retry.Step())
		select {
		case <-timer.C:
		case <-synced:
			timer.Stop()
			return c.fromMemory(o, k)
		case <-ctx.Done():
			timer.Stop()
			var none T
			return none, c.failure(k, errors.Join(err, ctx.Err()))
		}
	}
}

func (c *collection[T]) notFound(k key) error {
	return apierrors.NewNotFound(corev1.Resource(c.resource.kind), k.Name)
}

func (c *collection[T]) failure(k key, err error) error {
	return fmt.Errorf("read %s %s/%s: %w", c.resource.kind, k.namespace, k.Name, err)
}

// watched is the store of a reflector that watches a single object.
type watched[T object] struct {
	// changed is called, without the lock, when the object differs from the one before.
	changed func(T)
	// synced is closed as soon as it is known whether the object exists.
	synced chan struct{}
	once   sync.Once

	mu  sync.Mutex
	now T // nil if the object does not exist
}

var _ cache.ReflectorStore = (*watched[*corev1.Secret])(nil)

func newWatched[T object](changed func(T)) *watched[T] {
	return &watched[T]{changed: changed, synced: make(chan struct{})}
}

// get returns the object, which the caller must not change, or false if it does not exist.
func (w *watched[T]) get() (T, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var none T
	return w.now, w.now != none
}

func (w *watched[T]) set(next T) {
	var none T
	w.mu.Lock()
	old := w.now
	w.now = next
	w.mu.Unlock()
	w.once.Do(func() { close(w.synced) })
	if old == next || old != none && next != none && old.GetUID() == next.GetUID() && old.GetResourceVersion() == next.GetResourceVersion() {
		return
	}
	w.changed(next)
}

// Add implements cache.ReflectorStore.
func (w *watched[T]) Add(o any) error { return w.Update(o) }

// Update implements cache.ReflectorStore.
func (w *watched[T]) Update(o any) error {
	if next, ok := o.(T); ok {
		w.set(next)
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (w *watched[T]) Delete(any) error {
	var none T
	w.set(none)
	return nil
}

// Replace implements cache.ReflectorStore.
func (w *watched[T]) Replace(list []any, _ string) error {
	if len(list) == 0 {
		return w.Delete(nil)
	}
	return w.Update(list[0])
}

// Resync implements cache.ReflectorStore.
func (w *watched[T]) Resync() error { return nil }
