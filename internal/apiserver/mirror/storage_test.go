package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

// refusingStorage is storage that refuses every write.
type refusingStorage struct{ storage.Interface }

var errRefused = errors.New("etcd is full")

func (refusingStorage) Create(context.Context, string, runtime.Object, runtime.Object, uint64) error {
	return errRefused
}

func (refusingStorage) Delete(context.Context, string, runtime.Object, *storage.Preconditions, storage.ValidateObjectFunc, runtime.Object, storage.DeleteOptions) error {
	return errRefused
}

func (refusingStorage) GuaranteedUpdate(context.Context, string, runtime.Object, bool, *storage.Preconditions, storage.UpdateFunc, runtime.Object) error {
	return errRefused
}

// TestFailedWritesAreNotDelivered checks writes that fail although their out parameter holds an object.
func TestFailedWritesAreNotDelivered(t *testing.T) {
	t.Parallel()
	listener := newRecorder()
	listener.present["kept"] = true
	feed := feedTo(listener)
	layer := &deliveringStorage{Interface: refusingStorage{}, feed: feed, newObj: func() runtime.Object { return &corev1.ServiceAccount{} }}
	out := func(name string) runtime.Object { return change{revision: 7, name: name}.object() }
	for name, err := range map[string]error{
		"create": layer.Create(t.Context(), "k", nil, out("made"), 0),
		"delete": layer.Delete(t.Context(), "k", out("kept"), nil, nil, nil, storage.DeleteOptions{}),
		"update": layer.GuaranteedUpdate(t.Context(), "k", out("changed"), false, nil, nil, nil),
	} {
		if !errors.Is(err, errRefused) {
			t.Errorf("%s: %v, want %v", name, err, errRefused)
		}
	}
	if listener.has("made") || listener.has("changed") || !listener.has("kept") || feed.Latest() != 0 {
		t.Errorf("failed writes were delivered: %v, latest %d", listener.present, feed.Latest())
	}
}

// TestCachedReads checks that a read is served from the cache if it names no revision and a write has been delivered.
func TestCachedReads(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		revision string
		latest   uint64
		tooLarge bool
		want     []string
	}{
		{"", 0, false, []string{""}}, {"", 5, false, []string{"5"}}, {"3", 5, false, []string{"3"}}, {"3", 0, false, []string{"3"}},
		{"", 5, true, []string{"5", ""}},
	} {
		f := feedTo()
		f.latest.Store(tt.latest)
		s := &scriptedStorage{tooLarge: tt.tooLarge}
		err := (&cachedReads{Interface: s, feed: f}).Get(t.Context(), "k", storage.GetOptions{ResourceVersion: tt.revision}, nil)
		if err != nil || fmt.Sprint(s.read) != fmt.Sprint(tt.want) {
			t.Errorf("get at %q with latest %d: %v, read %q, want %q", tt.revision, tt.latest, err, s.read, tt.want)
		}
	}
}

// failingGetter fails to return storage options.
type failingGetter struct{ error }

func (g failingGetter) GetRESTOptions(schema.GroupResource, runtime.Object) (generic.RESTOptions, error) {
	return generic.RESTOptions{}, g.error
}

// TestStorageErrors checks that an error of the underlying storage is returned.
func TestStorageErrors(t *testing.T) {
	t.Parallel()
	want := errors.New("no such resource")
	if _, err := New(Config{Base: failingGetter{want}}, accounts).GetRESTOptions(accounts, nil); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	unknown := &storagebackend.ConfigForResource{Config: storagebackend.Config{Type: "unknown"}, GroupResource: accounts}
	if s, _, err := New(Config{}, accounts).decorate(unknown, "", nil, nil, nil, nil, nil, nil); err == nil || s != nil {
		t.Errorf("a storage of unknown type: %v, %v", s, err)
	}
}

// TestTimedWatches checks that events get new times only in watches that record times, as the watch cache's does.
func TestTimedWatches(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	event := watch.Event{Type: watch.Added, Object: &timedObject{Object: &corev1.ServiceAccount{}, at: at}}
	for _, timed := range []bool{true, false} {
		w, err := boundedHistory{&scriptedStorage{events: []watch.Event{event}}}.Watch(t.Context(), "", storage.ListOptions{RecordTimestamps: timed})
		if err != nil {
			t.Fatal(err)
		}
		got := <-w.ResultChan()
		w.Stop()
		if changed := got.Object != event.Object; changed != timed {
			t.Errorf("times recorded: %v, times changed: %v", timed, changed)
		}
	}
	away := errors.New("away")
	if _, err := (boundedHistory{&scriptedStorage{openErr: away}}).Watch(t.Context(), "", storage.ListOptions{RecordTimestamps: true}); !errors.Is(err, away) {
		t.Errorf("got %v, want %v", err, away)
	}
}

// TestEventTimes checks that small events keep their times and that large ones are moved apart.
func TestEventTimes(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := &eventTimes{}
	event := func(size int, at time.Time) time.Time {
		return h.next(&timedObject{Object: &corev1.ConfigMap{Data: map[string]string{"k": strings.Repeat("x", size)}}, at: at})
	}

	// Small events that are not too frequent keep their times.
	for i := range 100 {
		at := start.Add(time.Duration(i) * 10 * time.Millisecond)
		if got := event(100, at); !got.Equal(at) {
			t.Fatalf("event %d: %v, want %v", i, got, at)
		}
	}
	// After historyBytes of large events, the times are as far apart as the whole history of the cache.
	burst := start.Add(time.Minute)
	first := event(100_000, burst)
	if !first.Equal(burst) {
		t.Errorf("the first large event: %v, want %v", first, burst)
	}
	last := first
	for range historyBytes / 100_000 {
		next := event(100_000, burst)
		if !next.After(last) {
			t.Fatalf("%v is not after %v", next, last)
		}
		last = next
	}
	if apart := last.Sub(first); apart < cacher.DefaultEventFreshDuration || apart > cacher.DefaultEventFreshDuration*11/10 {
		t.Errorf("%d bytes are %v apart, want %v", historyBytes, apart, cacher.DefaultEventFreshDuration)
	}
	// Later events have their real times again.
	later := burst.Add(2 * cacher.DefaultEventFreshDuration)
	if got := event(100, later); !got.Equal(later) {
		t.Errorf("after the burst: %v, want %v", got, later)
	}
}
