package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

// scriptedStorage is storage whose results a test sets beforehand.
type scriptedStorage struct {
	storage.Interface
	revision         string // of the list
	listErr, openErr error
	events           []watch.Event // events of each watch, which then ends
	tooLarge         bool          // whether Get fails if it is called with a revision
	read             []string      // the revisions that Get was called with
	currentRevision  func() (uint64, error)
}

func (s *scriptedStorage) GetList(_ context.Context, _ string, _ storage.ListOptions, list runtime.Object) error {
	list.(*corev1.ServiceAccountList).ResourceVersion = s.revision
	return s.listErr
}

func (s *scriptedStorage) Watch(context.Context, string, storage.ListOptions) (watch.Interface, error) {
	if s.openErr != nil {
		return nil, s.openErr
	}
	w := watch.NewFakeWithChanSize(len(s.events), false)
	for _, e := range s.events {
		w.Action(e.Type, e.Object)
	}
	w.Stop()
	return w, nil
}

func (s *scriptedStorage) Get(_ context.Context, _ string, opts storage.GetOptions, _ runtime.Object) error {
	s.read = append(s.read, opts.ResourceVersion)
	if s.tooLarge && opts.ResourceVersion != "" {
		return storage.NewTooLargeResourceVersionError(5, 1, 1)
	}
	return nil
}

func (s *scriptedStorage) GetCurrentResourceVersion(context.Context) (uint64, error) {
	return s.currentRevision()
}

func (*scriptedStorage) RequestWatchProgress(context.Context) error { return nil }

// TestListAndWatchReturnsTheReason checks that listAndWatch returns why the watch ended, after it has delivered every
// event before the end.
func TestListAndWatchReturnsTheReason(t *testing.T) {
	t.Parallel()
	broken, gone := errors.New("broken"), errors.New("the server stops")
	status := watch.Event{Type: watch.Error, Object: &metav1.Status{Message: "compacted"}}
	made := []watch.Event{change{revision: 3, name: "a"}.event(), change{revision: 4, name: "b"}.event()}
	for _, tt := range []struct {
		name    string
		storage scriptedStorage
		cause   error // of the end of the context
		is      error
		text    string
		heard   bool // whether the events are delivered
		opened  bool
	}{
		{name: "closed", storage: scriptedStorage{revision: "2", events: made}, text: "watch closed", heard: true, opened: true},
		{name: "closed with the context", storage: scriptedStorage{revision: "2", events: made}, cause: gone, is: gone, heard: true, opened: true},
		{name: "an error event", storage: scriptedStorage{revision: "2", events: append(made, status)}, text: "compacted", heard: true, opened: true},
		{name: "no list", storage: scriptedStorage{listErr: broken}, is: broken, text: "list serviceaccounts"},
		{name: "a list of no revision", storage: scriptedStorage{revision: "x", events: made}, text: "list serviceaccounts"},
		{name: "no watch", storage: scriptedStorage{revision: "2", openErr: broken}, is: broken, text: "watch serviceaccounts"},
	} {
		listener := newRecorder()
		f := feedTo(listener)
		f.soleWriter, f.raw, f.newList = true, &tt.storage, func() runtime.Object { return &corev1.ServiceAccountList{} }
		ctx, cancel := context.WithCancelCause(t.Context())
		if tt.cause != nil {
			cancel(tt.cause)
		}
		opened, err := f.listAndWatch(ctx)
		cancel(nil)
		if err == nil || !strings.Contains(err.Error(), tt.text) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.is, tt.text)
		}
		if (opened > 0) != tt.opened || listener.has("a") != tt.heard || listener.has("b") != tt.heard {
			t.Errorf("%s: opened at %v, delivered %v", tt.name, opened, listener.present)
		}
	}
}

// TestWatchMadeProgress checks after which watches the next one is opened without a long pause.
func TestWatchMadeProgress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		opened, progress time.Duration
		soleWriter, want bool
	}{
		{0, 0, true, false}, {0, 5, false, false}, {5, 0, true, true}, {5, 4, false, false}, {5, 5, false, false}, {5, 6, false, true},
	} {
		f := feedTo()
		f.soleWriter = tt.soleWriter
		f.provedAt.Store(int64(tt.progress))
		if got := f.watchMadeProgress(tt.opened); got != tt.want {
			t.Errorf("opened at %d, progress %d, sole writer %v: %v, want %v", tt.opened, tt.progress, tt.soleWriter, got, tt.want)
		}
	}
}

// TestEachAttemptHasItsOwnStream checks that no two attempts have the same gRPC metadata.
func TestEachAttemptHasItsOwnStream(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	f := feedTo()
	for attempt := range 4 {
		f.attempt.Store(int64(attempt))
		stream, _ := metadata.FromOutgoingContext(f.withOwnStream(t.Context()))
		if before, ok := seen[fmt.Sprint(stream)]; ok {
			t.Errorf("attempts %d and %d share %v", before, attempt, stream)
		}
		seen[fmt.Sprint(stream)] = attempt
	}
}

// TestIsUnreadable checks which errors of the storage end the start at once.
func TestIsUnreadable(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"internal":  {storage.NewInternalError(errors.New("no key")), true},
		"corrupt":   {storage.NewCorruptObjError("k", errors.New("no key")), true},
		"wrapped":   {fmt.Errorf("list: %w", storage.NewCorruptObjError("k", errors.New("no key"))), true},
		"not found": {storage.NewKeyNotFoundError("k", 1), false},
		"other":     {errors.New("away"), false},
	} {
		if got := isUnreadable(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestMetadataOf checks that a feed keeps four fields of an object and no more, since it keeps them for every object.
func TestMetadataOf(t *testing.T) {
	t.Parallel()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: "a", UID: "u", ResourceVersion: "7", Annotations: map[string]string{"large": "x"},
	}}
	kept, ok := metadataOf(account).(*metav1.PartialObjectMetadata)
	if !ok || kept.Namespace != "ns" || kept.Name != "a" || kept.UID != "u" || kept.ResourceVersion != "7" || kept.Annotations != nil {
		t.Errorf("metadata of %+v is %+v", account, kept)
	}
}
