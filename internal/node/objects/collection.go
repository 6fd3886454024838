package objects

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

// patience is how long a reader waits for a watch that has just begun, before it asks for the object itself.
const patience = 500 * time.Millisecond

// refusals bounds how long a refusal is taken for an authority that does not know yet that the pod is on this node.
func refusals() wait.Backoff {
	return wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 5}
}

// shelf keeps the objects of one kind.
type shelf[T object] struct {
	// ctx ends all watches.
	ctx     context.Context
	source  source[T]
	changed func(key)

	mu    sync.Mutex
	items map[key]*item[T]
}

// item is an object that pods hold.
type item[T object] struct {
	cell    *cell[T]
	holders map[types.UID]bool
	// stop ends the watch; nil while there is none, as for an object that cannot change.
	stop context.CancelFunc
}

func newShelf[T object](ctx context.Context, source source[T], changed func(key)) *shelf[T] {
	return &shelf[T]{ctx: ctx, source: source, changed: changed, items: map[key]*item[T]{}}
}

func (s *shelf[T]) hold(k key, pod types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items[k]
	if it == nil {
		it = &item[T]{holders: map[types.UID]bool{}}
		it.cell = newCell(func(now T) { s.note(k, it, now) })
		s.items[k] = it
	}
	it.holders[pod] = true
	// An object that cannot change may have been replaced by another of its name: a new pod is the time to look.
	if it.stop == nil {
		s.watch(k, it)
	}
}

func (s *shelf[T]) release(k key, pod types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items[k]
	if it == nil {
		return
	}
	delete(it.holders, pod)
	if len(it.holders) > 0 {
		return
	}
	delete(s.items, k)
	if it.stop != nil {
		it.stop()
	}
}

// note is told of each change of an item.
func (s *shelf[T]) note(k key, it *item[T], now T) {
	var none T
	if now != none && s.source.immutable(now) {
		s.mu.Lock()
		if it.stop != nil {
			it.stop()
			it.stop = nil
		}
		s.mu.Unlock()
	}
	s.changed(k)
}

// watch begins a watch of the one object: more a node may not see.
func (s *shelf[T]) watch(k key, it *item[T]) {
	ctx, stop := context.WithCancel(s.ctx)
	it.stop = stop
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, k.Name).String()
	reflector := cache.NewReflectorWithOptions(
		s.source.listWatch(k.namespace, func(o *metav1.ListOptions) { o.FieldSelector = selector }),
		s.source.example(), it.cell, cache.ReflectorOptions{Name: s.source.name() + " " + k.namespace + "/" + k.Name},
	)
	go reflector.RunWithContext(ctx)
}

func (s *shelf[T]) find(k key) *cell[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.items[k]; it != nil {
		return it.cell
	}
	return nil
}

// read returns the object of a cell once its watch has begun, or else what the authority answers.
func (s *shelf[T]) read(ctx context.Context, k key) (T, error) {
	c := s.find(k)
	if c == nil {
		return s.ask(ctx, k, nil)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.synced:
		return s.see(c, k)
	case <-ctx.Done():
		var none T
		return none, s.failure(k, ctx.Err())
	case <-timer.C:
		return s.ask(ctx, k, c)
	}
}

func (s *shelf[T]) see(c *cell[T], k key) (T, error) {
	found, ok := c.get()
	if !ok {
		return found, s.notFound(k)
	}
	return found, nil
}

// ask gets the object, or has it from the cell if that is quicker. A refusal is not believed at once.
func (s *shelf[T]) ask(ctx context.Context, k key, c *cell[T]) (T, error) {
	var synced <-chan struct{}
	if c != nil {
		synced = c.synced
	}
	for retry := refusals(); ; {
		found, err := s.source.get(ctx, k.namespace, k.Name)
		switch {
		case err == nil:
			return found, nil
		case apierrors.IsNotFound(err):
			return found, s.notFound(k)
		case !apierrors.IsForbidden(err) || retry.Steps == 0:
			var none T
			return none, s.failure(k, err)
		}
		timer := time.NewTimer(retry.Step())
		select {
		case <-timer.C:
		case <-synced:
			timer.Stop()
			return s.see(c, k)
		case <-ctx.Done():
			timer.Stop()
			var none T
			return none, s.failure(k, errors.Join(err, ctx.Err()))
		}
	}
}

func (s *shelf[T]) notFound(k key) error {
	return apierrors.NewNotFound(corev1.Resource(s.source.name()), k.Name)
}

func (s *shelf[T]) failure(k key, err error) error {
	return fmt.Errorf("read %s %s/%s: %w", s.source.name(), k.namespace, k.Name, err)
}

// object is a *corev1.Secret, *corev1.ConfigMap or *corev1.ServiceAccount.
type object interface {
	v1.Object
	comparable
}

// cell is where a reflector puts the one object it watches.
type cell[T object] struct {
	// changed is called, without the lock, when there is another object than before.
	changed func(T)
	// synced is closed when it is known for the first time whether the object exists.
	synced chan struct{}
	once   sync.Once

	mu  sync.Mutex
	now T // nil if there is none
}

var _ cache.ReflectorStore = (*cell[*nothing])(nil)

// nothing is a stand-in for the assertion above.
type nothing struct{ v1.Object }

func newCell[T object](changed func(T)) *cell[T] {
	return &cell[T]{changed: changed, synced: make(chan struct{})}
}

// get returns the object, which must not be changed, or false if none is there.
func (c *cell[T]) get() (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var none T
	return c.now, c.now != none
}

func (c *cell[T]) set(next T) {
	var none T
	c.mu.Lock()
	old := c.now
	c.now = next
	c.mu.Unlock()
	c.once.Do(func() { close(c.synced) })
	if old == next || old != none && next != none && old.GetUID() == next.GetUID() && old.GetResourceVersion() == next.GetResourceVersion() {
		return
	}
	c.changed(next)
}

// Add implements cache.ReflectorStore.
func (c *cell[T]) Add(o any) error { return c.Update(o) }

// Update implements cache.ReflectorStore.
func (c *cell[T]) Update(o any) error {
	if next, ok := o.(T); ok {
		c.set(next)
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (c *cell[T]) Delete(any) error {
	var none T
	c.set(none)
	return nil
}

// Replace implements cache.ReflectorStore.
func (c *cell[T]) Replace(list []any, _ string) error {
	if len(list) == 0 {
		return c.Delete(nil)
	}
	return c.Update(list[0])
}

// Resync implements cache.ReflectorStore.
func (c *cell[T]) Resync() error { return nil }
