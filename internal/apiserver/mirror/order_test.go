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

// change is one write as storage orders them.
type change struct {
	revision uint64
	name     string
	gone     bool
}

func (c change) object() runtime.Object {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: c.name, ResourceVersion: strconv.FormatUint(c.revision, 10)}}
}

func (c change) event() watch.Event {
	if c.gone {
		return watch.Event{Type: watch.Deleted, Object: c.object()}
	}
	return watch.Event{Type: watch.Modified, Object: c.object()}
}

// remembering listeners hold what they were told, as an index would, and every breach of order they saw.
type believer struct {
	mu     sync.Mutex
	holds  map[string]uint64 // name -> revision
	heard  map[string]uint64 // name -> revision of the last call
	pruned uint64            // while a prune runs, the revision of its list
	faults []string
}

func newBeliever() *believer {
	return &believer{holds: map[string]uint64{}, heard: map[string]uint64{}}
}

func (b *believer) Set(obj runtime.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, revision := nameOf(obj), revisionOf(obj)
	if revision <= b.heard[name] {
		b.faults = append(b.faults, fmt.Sprintf("set %s at %d after %d", name, revision, b.heard[name]))
	}
	b.holds[name], b.heard[name] = revision, revision
}

func (b *believer) Delete(obj runtime.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, revision := nameOf(obj), revisionOf(obj)
	if b.pruned > 0 {
		revision = b.pruned // a list says only that the object went before it
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

// world is a store with writers in this process and elsewhere, and one feed that follows it.
type world struct {
	t       testing.TB
	feed    *Feed
	listens *believer

	history  []change
	revision uint64 // of the whole store; other resources move it too
	untold   []change
	watched  int // how much of history the watch has delivered

	// list is what a list under way has still to tell.
	listing bool
	list    []change
	present map[string]bool
	at      uint64
}

func feedTo(listeners ...Listener) *Feed {
	f := newFeed(accounts, Config{})
	for _, l := range listeners {
		f.Listen(l)
	}
	return f
}

func newWorld(t testing.TB) *world {
	b := newBeliever()
	return &world{t: t, feed: feedTo(b), listens: b, revision: 1}
}

var names = []string{"a", "b", "c"}

// live is what the store holds after the changes given.
func live(history []change) map[string]uint64 {
	holds := map[string]uint64{}
	for _, c := range history {
		if c.gone {
			delete(holds, c.name)
		} else {
			holds[c.name] = c.revision
		}
	}
	return holds
}

// step does one thing that choice and detail pick.
func (w *world) step(choice, detail byte) {
	switch choice % 8 {
	case 0, 1:
		w.write(detail, true)
	case 2:
		w.write(detail, false)
	case 3, 4:
		w.tell(int(detail))
	case 5, 6:
		w.follow(detail)
	case 7:
		w.relist(detail)
	}
}

// write changes the store. A write of this process will be told some time, one of another process never.
func (w *world) write(detail byte, mine bool) {
	name := names[int(detail)%len(names)]
	_, exists := live(w.history)[name]
	w.revision += 1 + uint64(detail>>6)
	c := change{revision: w.revision, name: name, gone: exists && detail&8 != 0}
	w.history = append(w.history, c)
	if mine {
		w.untold = append(w.untold, c)
	}
}

// tell lets one writer return, and holds the feed to its promise: its listeners are not behind that write.
func (w *world) tell(which int) {
	if len(w.untold) == 0 {
		return
	}
	which %= len(w.untold)
	c := w.untold[which]
	w.untold = slices.Delete(w.untold, which, which+1)
	w.feed.tellWritten(c.object(), c.gone)
	if w.feed.Latest() < c.revision {
		w.t.Errorf("latest is %d after a write at %d was acknowledged", w.feed.Latest(), c.revision)
	}
	if held, ok := w.listens.holds[c.name]; ok && held < c.revision {
		w.t.Errorf("listener holds %s at %d after its write at %d was acknowledged", c.name, held, c.revision)
	} else if !ok && !w.goneSince(c) {
		w.t.Errorf("listener lacks %s after its write at %d was acknowledged", c.name, c.revision)
	}
}

func (w *world) goneSince(c change) bool {
	return slices.ContainsFunc(w.history, func(h change) bool { return h.gone && h.name == c.name && h.revision >= c.revision })
}

// follow delivers the next event of the watch, or says that there is none before the store's revision.
func (w *world) follow(detail byte) {
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

func (w *world) receive(event watch.Event) {
	if err := w.feed.receive(event); err != nil {
		w.t.Errorf("receive %v: %v", event.Type, err)
	}
}

// relist begins a list, whose items are told one at a time while writers go on, or ends it early as a broken
// connection does.
func (w *world) relist(detail byte) {
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

func (w *world) continueList() {
	if len(w.list) > 0 {
		w.feed.tellListed(w.list[0].object())
		w.list = w.list[1:]
		return
	}
	w.listens.pruned = w.at
	w.feed.prune(w.present, w.at)
	w.listens.pruned = 0
	w.listing = false
}

// settle lets everything arrive and compares.
func (w *world) settle() {
	for w.listing {
		w.continueList()
	}
	for w.watched < len(w.history) || len(w.untold) > 0 {
		if w.watched < len(w.history) && len(w.untold)%2 == 0 {
			w.follow(1)
		} else if len(w.untold) > 0 {
			w.tell(len(w.untold) - 1)
		} else {
			w.follow(1)
		}
	}
	want := live(w.history)
	if !maps.Equal(w.listens.holds, want) {
		w.t.Errorf("listener ends with %v, store with %v", w.listens.holds, want)
	}
	if len(w.feed.seen) != len(want) {
		w.t.Errorf("feed remembers %d objects of %d: %v", len(w.feed.seen), len(want), w.feed.seen)
	}
	for _, fault := range w.listens.faults {
		w.t.Error(fault)
	}
}

func (w *world) describe() string { return fmt.Sprintf("history %+v", w.history) }

// TestAnyOrder plays random interleavings of late writers, the watch, broken watches and lists.
func TestAnyOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t)
		for range 5 + random.IntN(60) {
			w.step(byte(random.Uint32()), byte(random.Uint32()))
		}
		w.settle()
		if t.Failed() {
			t.Fatalf("seed %d: %s", seed, w.describe())
		}
	}
}

func FuzzAnyOrder(f *testing.F) {
	f.Add([]byte{0, 0, 5, 0, 0, 8, 5, 0, 3, 0, 3, 0})
	f.Add([]byte{0, 0, 0, 8, 3, 1, 7, 1, 7, 0, 3, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		w := newWorld(t)
		for i := 0; i+1 < len(steps); i += 2 {
			w.step(steps[i], steps[i+1])
		}
		w.settle()
	})
}

// TestConcurrentWriters runs the watch and many writers at once: the feed is asked in an order no one controls.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	for range 20 {
		b := newBeliever()
		f := feedTo(b)
		var history []change
		for i := range uint64(400) {
			history = append(history, change{revision: i + 1, name: strconv.FormatUint(i/2%5, 10), gone: i%2 == 1})
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
					f.tellWritten(c.object(), c.gone)
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
		if len(b.holds) > 0 || len(f.seen) > 0 || len(b.faults) > 0 {
			t.Fatalf("listener ends with %v, feed with %v; faults %v", b.holds, f.seen, b.faults)
		}
	}
}
