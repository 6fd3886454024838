package mirror

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// change is one write of an object.
type change struct {
	revision uint64
	name     string
	deleted  bool
}

func (c change) object() runtime.Object {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: c.name, ResourceVersion: strconv.FormatUint(c.revision, 10)}}
}

func (c change) event() watch.Event {
	if c.deleted {
		return watch.Event{Type: watch.Deleted, Object: c.object()}
	}
	return watch.Event{Type: watch.Modified, Object: c.object()}
}

// orderChecker is a listener that keeps what was delivered, as an index does, and records each call that is out of order.
type orderChecker struct {
	mu     sync.Mutex
	holds  map[string]uint64 // name -> revision
	heard  map[string]uint64 // name -> revision of the last call
	listed uint64            // the revision of the list while deleteMissing runs
	faults []string
}

func newOrderChecker() *orderChecker {
	return &orderChecker{holds: map[string]uint64{}, heard: map[string]uint64{}}
}

func (b *orderChecker) Set(obj runtime.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, revision := nameOf(obj), revisionOf(obj)
	if revision <= b.heard[name] {
		b.faults = append(b.faults, fmt.Sprintf("set %s at %d after %d", name, revision, b.heard[name]))
	}
	b.holds[name], b.heard[name] = revision, revision
}

func (b *orderChecker) Delete(obj runtime.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, revision := nameOf(obj), revisionOf(obj)
	if b.listed > 0 {
		revision = b.listed // the list only shows that the object was deleted before it
	}
	if revision <= b.heard[name] {
		b.faults = append(b.faults, fmt.Sprintf("delete %s at %d after %d", name, revision, b.heard[name]))
	}
	b.heard[name] = revision
	delete(b.holds, name)
}

func nameOf(obj runtime.Object) string {
	m, err := meta.Accessor(obj)
	if err != nil {
		return ""
	}
	return m.GetName()
}

// simulation is a store with writers in this process and in others, and one feed of it.
type simulation struct {
	t       testing.TB
	feed    *Feed
	checker *orderChecker

	history  []change
	revision uint64   // of the whole store, which other resources raise as well
	pending  []change // writes of this process that have not been delivered
	watched  int      // the number of changes in history that the watch has delivered

	listing bool            // whether a list is under way
	list    []change        // its items that have not been delivered
	present map[string]bool // the keys of all its items
	at      uint64          // its revision
}

func feedTo(listeners ...Listener) *Feed {
	f := newFeed(accounts, Config{})
	for _, l := range listeners {
		f.Listen(l)
	}
	return f
}

func newSimulation(t testing.TB) *simulation {
	b := newOrderChecker()
	return &simulation{t: t, feed: feedTo(b), checker: b, revision: 1}
}

var names = []string{"a", "b", "c"}

// live returns the content of the store after the changes.
func live(history []change) map[string]uint64 {
	holds := map[string]uint64{}
	for _, c := range history {
		if c.deleted {
			delete(holds, c.name)
		} else {
			holds[c.name] = c.revision
		}
	}
	return holds
}

// step performs one action, which choice and detail select.
func (w *simulation) step(choice, detail byte) {
	switch choice % 8 {
	case 0, 1:
		w.write(detail, true)
	case 2:
		w.write(detail, false)
	case 3, 4:
		w.acknowledge(int(detail))
	case 5, 6:
		w.deliverNext(detail)
	case 7:
		w.relist(detail)
	}
}

// write changes the store. A write of this process is delivered later; a write of another process is delivered by the watch only.
func (w *simulation) write(detail byte, mine bool) {
	name := names[int(detail)%len(names)]
	_, exists := live(w.history)[name]
	w.revision += 1 + uint64(detail>>6)
	c := change{revision: w.revision, name: name, deleted: exists && detail&8 != 0}
	w.history = append(w.history, c)
	if mine {
		w.pending = append(w.pending, c)
	}
}

// acknowledge lets one write of this process return, and checks that the listener is not behind it.
func (w *simulation) acknowledge(which int) {
	if len(w.pending) == 0 {
		return
	}
	which %= len(w.pending)
	c := w.pending[which]
	w.pending = slices.Delete(w.pending, which, which+1)
	w.feed.deliverWritten(c.object(), c.deleted)
	if w.feed.Latest() < c.revision {
		w.t.Errorf("latest is %d after a write at %d was acknowledged", w.feed.Latest(), c.revision)
	}
	if held, ok := w.checker.holds[c.name]; ok && held < c.revision {
		w.t.Errorf("listener holds %s at %d after its write at %d was acknowledged", c.name, held, c.revision)
	} else if !ok && !w.deletedSince(c) {
		w.t.Errorf("listener lacks %s after its write at %d was acknowledged", c.name, c.revision)
	}
}

func (w *simulation) deletedSince(c change) bool {
	return slices.ContainsFunc(w.history, func(h change) bool { return h.deleted && h.name == c.name && h.revision >= c.revision })
}

// deliverNext delivers the next item of a list or event of the watch, or else a bookmark at the store's revision.
func (w *simulation) deliverNext(detail byte) {
	switch {
	case w.listing:
		w.continueList()
	case w.watched < len(w.history):
		c := w.history[w.watched]
		w.watched++
		w.receive(c.event())
	case detail&1 == 0:
		w.receive(watch.Event{Type: watch.Bookmark, Object: change{revision: w.revision}.object()})
	}
}

func (w *simulation) receive(event watch.Event) {
	if err := w.feed.receive(event); err != nil {
		w.t.Errorf("receive %v: %v", event.Type, err)
	}
}

// relist begins a list. Its items are delivered one at a time while writers go on. A list that is under way may be
// replaced, as it is when the connection breaks.
func (w *simulation) relist(detail byte) {
	if w.listing && detail&1 == 0 {
		w.continueList()
		return
	}
	w.listing, w.list, w.present, w.at = true, nil, map[string]bool{}, w.revision
	for name, revision := range live(w.history) {
		w.list = append(w.list, change{revision: revision, name: name})
		w.present["ns/"+name] = true
	}
	w.watched = len(w.history)
}

func (w *simulation) continueList() {
	if len(w.list) > 0 {
		w.feed.deliverListed(w.list[0].object())
		w.list = w.list[1:]
		return
	}
	w.checker.listed = w.at
	w.feed.deleteMissing(w.present, w.at)
	w.checker.listed = 0
	w.listing = false
}

// settle delivers everything and compares the listener with the store.
func (w *simulation) settle() {
	for w.listing {
		w.continueList()
	}
	for w.watched < len(w.history) || len(w.pending) > 0 {
		if w.watched < len(w.history) && len(w.pending)%2 == 0 {
			w.deliverNext(1)
		} else if len(w.pending) > 0 {
			w.acknowledge(len(w.pending) - 1)
		} else {
			w.deliverNext(1)
		}
	}
	want := live(w.history)
	if !maps.Equal(w.checker.holds, want) {
		w.t.Errorf("listener ends with %v, store with %v", w.checker.holds, want)
	}
	if len(w.feed.delivered) != len(want) {
		w.t.Errorf("the feed keeps %d objects of %d: %v", len(w.feed.delivered), len(want), w.feed.delivered)
	}
	for _, fault := range w.checker.faults {
		w.t.Error(fault)
	}
}

func (w *simulation) describe() string { return fmt.Sprintf("history %+v", w.history) }

// TestAnyOrder runs random interleavings of writers, the watch, broken watches and lists.
func TestAnyOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := newSimulation(t)
		for range 5 + random.IntN(60) {
			w.step(byte(random.Uint32()), byte(random.Uint32()))
		}
		w.settle()
		if t.Failed() {
			t.Fatalf("seed %d: %s", seed, w.describe())
		}
	}
}

// FuzzAnyOrder runs the interleaving that the input describes.
func FuzzAnyOrder(f *testing.F) {
	f.Add([]byte{0, 0, 5, 0, 0, 8, 5, 0, 3, 0, 3, 0})
	f.Add([]byte{0, 0, 0, 8, 3, 1, 7, 1, 7, 0, 3, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		w := newSimulation(t)
		for i := 0; i+1 < len(steps); i += 2 {
			w.step(steps[i], steps[i+1])
		}
		w.settle()
	})
}

// TestConcurrentWriters runs the watch and several writers in parallel.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	for range 20 {
		b := newOrderChecker()
		f := feedTo(b)
		var history []change
		for i := range uint64(400) {
			history = append(history, change{revision: i + 1, name: strconv.FormatUint(i/2%5, 10), deleted: i%2 == 1})
		}
		var running sync.WaitGroup
		var committed sync.Mutex
		next := 0
		for range 4 {
			running.Go(func() {
				for {
					committed.Lock()
					if next == len(history) {
						committed.Unlock()
						return
					}
					c := history[next]
					next++
					committed.Unlock()
					f.deliverWritten(c.object(), c.deleted)
				}
			})
		}
		running.Go(func() {
			for _, c := range history {
				if err := f.receive(c.event()); err != nil {
					t.Error(err)
				}
			}
		})
		running.Wait()
		if len(b.holds) > 0 || len(f.delivered) > 0 || len(b.faults) > 0 {
			t.Fatalf("listener ends with %v, feed with %v; faults %v", b.holds, f.delivered, b.faults)
		}
	}
}
