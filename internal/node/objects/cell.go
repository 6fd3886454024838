package objects

import (
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

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
