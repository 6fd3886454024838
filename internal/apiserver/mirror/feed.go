package mirror

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Listener learns of changes to one resource. Calls for one object come in the order of its versions, one at a time
// for the whole feed. obj is shared with the request that wrote it: a listener copies what it keeps.
type Listener interface {
	Set(obj runtime.Object)
	// Delete is told the last state of the object, or a PartialObjectMetadata where that is not known.
	Delete(obj runtime.Object)
}

// Feed is the ordered stream of changes of one resource.
type Feed struct {
	resource  schema.GroupResource
	newList   func() runtime.Object
	clock     clock.PassiveClock
	epoch     time.Time // what now counts from
	pace      pace
	maxLag    time.Duration
	listeners []Listener
	// alone is true when no other process writes the storage.
	alone bool

	raw    storage.Interface
	prefix string

	mu      sync.Mutex
	seen    map[string]version
	watched uint64 // the watch has told everything up to this revision
	goal    goal   // zero when there is none

	synced     chan struct{} // closed once every object that was stored at the start has been told
	unreadable chan error    // gets one error where the first list shows objects that cannot be read
	once       sync.Once     // for the two of them
	progress   atomic.Int64  // all that was written before this instant of now has been told; written under mu
	latest     atomic.Uint64
}

// version is the last state told of one object.
type version struct {
	revision uint64
	gone     bool
	object   runtime.Object // its metadata
}

// Listen adds a listener. All listeners are added before Run.
func (f *Feed) Listen(l Listener) { f.listeners = append(f.listeners, l) }

// Latest is the highest revision this feed has told, or 0.
func (f *Feed) Latest() uint64 { return f.latest.Load() }

// listTimeout bounds the reading of everything that is stored. It fits the largest stores.
const listTimeout = time.Minute

// Run lists and watches until ctx ends. It must run once.
func (f *Feed) Run(ctx context.Context) {
	backoff := wait.Backoff{Duration: 20 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 9, Cap: 5 * time.Second}
	delay := backoff
	for attempt := 0; ctx.Err() == nil; attempt++ {
		opened, err := f.listAndWatch(inStream(ctx, attempt))
		if f.proved(opened) {
			delay = backoff
		}
		if ctx.Err() != nil {
			return
		}
		if isUnreadable(err) {
			f.once.Do(func() { f.unreadable <- err })
		}
		klog.V(1).InfoS("Watch of storage ended; listing again", "resource", f.resource, "reason", err)
		select {
		case <-ctx.Done():
		case <-time.After(delay.Step()):
		}
	}
}

// proved reports whether a watch that was open since the given instant, or never if it is 0, has proved something. After
// one that did not, the list alone would be repeated without a pause.
func (f *Feed) proved(opened time.Duration) bool {
	return opened > 0 && (f.alone || time.Duration(f.progress.Load()) > opened)
}

// inStream returns a context whose watches share no stream with those of an earlier attempt. The etcd client keeps one
// stream for all watches of the same metadata, so that a watch which is opened again would be back on the connection that
// is hung; each stream is opened on the next connection in turn.
func inStream(ctx context.Context, attempt int) context.Context {
	if attempt == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "lanyard-watch-attempt", strconv.Itoa(attempt))
}

// isUnreadable tells objects that cannot be decrypted or decoded, which trying again does not mend, from storage that
// does not answer now.
func isUnreadable(err error) bool {
	var internal storage.InternalError
	var fault *storage.StorageError
	return errors.As(err, &internal) || errors.As(err, &fault) && storage.IsCorruptObject(fault)
}

// listAndWatch also returns the instant from which on it watched, or 0.
func (f *Feed) listAndWatch(ctx context.Context) (opened time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	revision, err := f.list(ctx)
	if err != nil {
		return 0, fmt.Errorf("list %s: %w", f.resource, err)
	}
	w, err := f.raw.Watch(ctx, f.prefix, storage.ListOptions{
		ResourceVersion: revision, Predicate: everything(), Recursive: true, ProgressNotify: true,
	})
	if err != nil {
		return 0, fmt.Errorf("watch %s: %w", f.resource, err)
	}
	defer w.Stop()
	f.once.Do(func() { close(f.synced) })
	opened = f.now()
	if !f.alone {
		go func() { cancel(f.measureLag(ctx, opened)) }()
	}
	for event := range w.ResultChan() {
		if err := f.receive(event); err != nil {
			return opened, err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return opened, fmt.Errorf("watch %s: %w", f.resource, err)
	}
	return opened, errors.New("watch closed")
}

func (f *Feed) receive(event watch.Event) error {
	switch event.Type {
	case watch.Error:
		return fmt.Errorf("watch %s: %v", f.resource, event.Object)
	case watch.Added, watch.Modified:
		f.tellWatched(event.Object, false)
	case watch.Deleted:
		f.tellWatched(event.Object, true)
	case watch.Bookmark:
		f.advance(event.Object)
	}
	return nil
}

func everything() storage.SelectionPredicate {
	p := storage.Everything
	p.AllowWatchBookmarks = true
	return p
}

// list tells all that is stored, and the removal of what is not any more. It returns the revision to watch from.
func (f *Feed) list(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list, began := f.newList(), f.now()
	err := f.raw.GetList(ctx, f.prefix, storage.ListOptions{Predicate: storage.Everything, Recursive: true}, list)
	if err != nil {
		return "", err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return "", err
	}
	revision, err := storage.APIObjectVersioner{}.ParseResourceVersion(accessor.GetResourceVersion())
	if err != nil {
		return "", err
	}
	present := map[string]bool{}
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		present[keyOf(obj)] = true
		f.tellListed(obj)
		return nil
	})
	if err != nil {
		return "", err
	}
	f.prune(present, revision)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prove(began)
	return accessor.GetResourceVersion(), nil
}

// prune tells the removal of every object that a list at revision no longer holds.
func (f *Feed) prune(present map[string]bool, revision uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, v := range f.seen {
		if present[key] || v.revision > revision {
			continue
		}
		delete(f.seen, key)
		if !v.gone {
			f.pass(v.object, true)
		}
	}
	f.arrive(revision)
}

// tellWritten passes on what this process wrote itself. What the watch has passed already is dropped: the watch told
// it, or something newer. A removal is remembered until the watch is past it, so that an older addition still under
// way there cannot revive the object.
func (f *Feed) tellWritten(obj runtime.Object, gone bool) {
	key, revision := keyOf(obj), revisionOf(obj)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reach(revision) // even if a list has told it already: readers must not see less than this write
	if revision <= f.watched || revision <= f.seen[key].revision {
		return
	}
	f.seen[key] = version{revision: revision, gone: gone, object: metadataOf(obj)}
	f.pass(obj, gone)
}

// tellWatched passes on an event of the watch, and notes with it how far the watch is: a writer of the same change that
// came between the two would be told of as if it were news.
func (f *Feed) tellWatched(obj runtime.Object, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follow(obj, gone)
	f.arrive(revisionOf(obj))
}

// tellListed passes on an item of a list. Items come in no order of revisions, so only the end of the list, in prune,
// says how far it went.
func (f *Feed) tellListed(obj runtime.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follow(obj, false)
}

// follow passes on what storage says, unless it is no news.
func (f *Feed) follow(obj runtime.Object, gone bool) {
	key, revision := keyOf(obj), revisionOf(obj)
	last := f.seen[key]
	if revision <= last.revision {
		if gone && last.gone && revision == last.revision {
			delete(f.seen, key)
		}
		return
	}
	f.reach(revision)
	if gone {
		delete(f.seen, key)
	} else {
		f.seen[key] = version{revision: revision, object: metadataOf(obj)}
	}
	f.pass(obj, gone)
}

func (f *Feed) pass(obj runtime.Object, gone bool) {
	for _, l := range f.listeners {
		if gone {
			l.Delete(obj)
		} else {
			l.Set(obj)
		}
	}
}

// advance notes that the watch has told everything up to the revision of obj.
func (f *Feed) advance(obj runtime.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.arrive(revisionOf(obj))
}

func (f *Feed) reach(revision uint64) {
	if revision > f.latest.Load() {
		f.latest.Store(revision)
	}
}

func keyOf(obj runtime.Object) string {
	m, err := meta.Accessor(obj)
	if err != nil {
		return ""
	}
	return m.GetNamespace() + "/" + m.GetName()
}

// revisionOf returns 0, which is never told, for an object that was not stored.
func revisionOf(obj runtime.Object) uint64 {
	revision, err := storage.APIObjectVersioner{}.ObjectResourceVersion(obj)
	if err != nil {
		return 0
	}
	return revision
}

// metadataOf keeps the little of an object that a later removal is told with.
func metadataOf(obj runtime.Object) runtime.Object {
	m, err := meta.Accessor(obj)
	if err != nil {
		return obj
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUID(), ResourceVersion: m.GetResourceVersion(),
	}}
}
