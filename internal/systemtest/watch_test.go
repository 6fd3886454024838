package systemtest

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"lanyard.dev/lanyardtest"
)

// watch opens a watch that ends with the test.
func (w workbench) watch(t testing.TB, options metav1.ListOptions) watch.Interface {
	t.Helper()
	watching, err := w.client.Watch(t.Context(), options)
	if err != nil {
		t.Fatalf("watch %+v: %v", options, err)
	}
	t.Cleanup(watching.Stop)
	return watching
}

// awaitEvent returns the first event that is wanted.
func awaitEvent(t testing.TB, watching watch.Interface, wanted func(watch.Event) bool) watch.Event {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case e, ok := <-watching.ResultChan():
			switch {
			case !ok:
				t.Fatal("the watch ended")
			case wanted(e):
				return e
			case e.Type == watch.Error:
				t.Fatalf("watch: %v", apierrors.FromObject(e.Object))
			}
		case <-late.C:
			t.Fatalf("no such event within %v", patience)
		}
	}
}

// expect reads events up to one about each of the names in turn, all of the given type.
func expect(t testing.TB, watching watch.Interface, want watch.EventType, names ...string) {
	t.Helper()
	for _, name := range names {
		awaitEvent(t, watching, func(e watch.Event) bool {
			m, err := meta.Accessor(e.Object)
			// An object that is deleted with a grace period, be it none, is marked before it goes.
			marked := want == watch.Deleted && e.Type == watch.Modified && err == nil && m.GetDeletionTimestamp() != nil
			if err != nil || e.Type == watch.Bookmark || marked {
				return false
			}
			if m.GetName() != name || e.Type != want {
				t.Fatalf("%s %s, want %s %s", e.Type, m.GetName(), want, name)
			}
			return true
		})
	}
}

func version(t testing.TB, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWatchTellsEveryChangeSinceAVersion(t *testing.T) {
	eachKind(t, func(t *testing.T, w workbench) {
		first := w.create(t, w.name(0))
		w.create(t, w.name(1))
		if _, err := w.client.Patch(t.Context(), w.name(0), types.MergePatchType, label("1"), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		// What has happened already is told, from the version after which it did.
		watching := w.watch(t, metav1.ListOptions{LabelSelector: w.selector(), ResourceVersion: first.GetResourceVersion()})
		expect(t, watching, watch.Added, w.name(1))
		expect(t, watching, watch.Modified, w.name(0))
		w.create(t, w.name(2))
		expect(t, watching, watch.Added, w.name(2))
		if w.settles {
			return
		}
		// Leaving the selection is a removal to this watcher.
		if _, err := w.client.Patch(t.Context(), w.name(2), types.MergePatchType, []byte(`{"metadata":{"labels":{"of":null}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		expect(t, watching, watch.Deleted, w.name(2))
		if err := w.client.Delete(t.Context(), w.name(1), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect(t, watching, watch.Deleted, w.name(1))
	})
}

func TestStreamingListThenBookmark(t *testing.T) {
	eachKind(t, func(t *testing.T, w workbench) {
		var last uint64
		for i := range 3 {
			last = version(t, w.create(t, w.name(i)).GetResourceVersion())
		}
		watching := w.watch(t, metav1.ListOptions{
			LabelSelector: w.selector(), AllowWatchBookmarks: true,
			SendInitialEvents: ptr.To(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
		})
		seen := map[string]bool{}
		mark := awaitEvent(t, watching, func(e watch.Event) bool {
			m, err := meta.Accessor(e.Object)
			if err == nil && e.Type == watch.Added {
				seen[m.GetName()] = true
			}
			return e.Type == watch.Bookmark
		})
		m, err := meta.Accessor(mark.Object)
		if err != nil || m.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" {
			t.Errorf("the bookmark does not end the list: %v", mark.Object)
		}
		if len(seen) != 3 || version(t, m.GetResourceVersion()) < last {
			t.Errorf("before version %s the list had %v; want 3 up to version %d", m.GetResourceVersion(), seen, last)
		}
		w.create(t, w.name(3))
		expect(t, watching, watch.Added, w.name(3))
	})
}

func TestListOfAVersionThatIsNot(t *testing.T) {
	t.Parallel()
	admin := callerFor(t, authority(t).Config())
	for _, tt := range []struct {
		query string
		code  int
	}{
		{"resourceVersion=1000000000000&resourceVersionMatch=NotOlderThan", http.StatusGatewayTimeout},
		{"resourceVersion=x", http.StatusBadRequest},
		{"resourceVersionMatch=Exact", http.StatusUnprocessableEntity},
		{"watch=true&sendInitialEvents=true", http.StatusUnprocessableEntity},
	} {
		if got := admin.get(t, "/api/v1/configmaps?"+tt.query); got.code != tt.code {
			t.Errorf("%s: %s, want %d", tt.query, got, tt.code)
		}
	}
}

// TestWatchOfAForgottenVersion: a server that was started later does not know what happened then, and says so.
func TestWatchOfAForgottenVersion(t *testing.T) {
	t.Parallel()
	first := lanyardtest.Start(t)
	for range 3 {
		first.Namespace(t)
	}
	first.Stop(t)
	second := lanyardtest.StartWith(t, lanyardtest.Options{DataDir: first.DataDir()})
	watching, err := second.Client().CoreV1().Namespaces().Watch(t.Context(), metav1.ListOptions{ResourceVersion: "2"})
	if err == nil {
		defer watching.Stop()
		e := awaitEvent(t, watching, func(watch.Event) bool { return true })
		err = apierrors.FromObject(e.Object)
	}
	if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		t.Errorf("watch: %v, want gone", err)
	}
}
