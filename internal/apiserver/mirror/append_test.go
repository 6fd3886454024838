package mirror

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"lanyard.dev/internal/apiserver/registry/storagetest"
)

// heard is a listener that records the calls.
type heard []string

func (h *heard) Set(obj runtime.Object)    { *h = append(*h, fmt.Sprint(nameOf(obj), revisionOf(obj))) }
func (h *heard) Delete(obj runtime.Object) { *h = append(*h, "deleted "+nameOf(obj)) }

// TestAppendedObjectsAreDeliveredOnce checks a write that the watch delivers too, in both orders, a write that a list delivers too, and
// that nothing is kept of what the watch has passed.
func TestAppendedObjectsAreDeliveredOnce(t *testing.T) {
	t.Parallel()
	var h heard
	f := feedTo(&h)
	f.appended = true
	written := func(c change) { f.deliverWritten(c.object(), c.deleted) }
	written(change{revision: 5, name: "b"})
	change{revision: 4, name: "a"}.deliver(t, f)
	change{revision: 5, name: "b"}.deliver(t, f)
	written(change{revision: 4, name: "a"})
	change{revision: 7, name: "b"}.deliver(t, f) // an object that was written again
	change{revision: 8, name: "a", deleted: true}.deliver(t, f)
	written(change{revision: 10, name: "c"})
	for _, c := range []change{{revision: 7, name: "b"}, {revision: 10, name: "c"}, {revision: 9, name: "d"}} {
		f.deliverListed(c.object())
	}
	f.deleteMissing(nil, 10)
	if want := "[b5 a4 b7 c10 d9]"; fmt.Sprint(h) != want {
		t.Errorf("heard %v, want %s", h, want)
	}
	if len(f.delivered) > 0 {
		t.Errorf("the feed keeps %v", f.delivered)
	}
}

// smallPages is storage whose lists have pages of two objects.
type smallPages struct {
	storage.Interface
	pages int
}

func (s *smallPages) GetList(ctx context.Context, key string, opts storage.ListOptions, list runtime.Object) error {
	s.pages++
	opts.Predicate.Limit = min(opts.Predicate.Limit, 2)
	return s.Interface.GetList(ctx, key, opts, list)
}

// TestListsAreReadInPages checks that a feed delivers the objects of all pages, and the deletion of what no page has.
func TestListsAreReadInPages(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	other := accountStore(t, base, base)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		create(t, other, name)
	}
	var pages *smallPages
	var between *breakableStorage
	_, _, listener := start(t, base, false, func(f *Feed) {
		pages = &smallPages{Interface: f.raw}
		between = &breakableStorage{Interface: pages}
		f.raw = between
	})
	if pages.pages < 3 {
		t.Errorf("%d pages, want 3", pages.pages)
	}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if !listener.has(name) {
			t.Errorf("%s was not delivered", name)
		}
	}
	between.breakAll(errors.New("no leader"))
	remove(t, other, "c")
	create(t, other, "f")
	between.mend()
	listener.await(t, "c", false)
	listener.await(t, "f", true)
	if !listener.has("a") || !listener.has("e") {
		t.Error("a list in pages removed an account that exists")
	}
}

func TestNextPage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		count, bytes int
		want         int64
	}{{0, 0, maxPage}, {500, 500 * 600, 6990}, {500, 500 * 100, maxPage}, {500, 500 << 20, minPage}} {
		if got := nextPage(tt.count, tt.bytes); got != tt.want {
			t.Errorf("after %d objects of %d bytes: %d, want %d", tt.count, tt.bytes, got, tt.want)
		}
	}
}
