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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Listener receives the changes of one resource. A feed makes one call at a time, and makes the calls about one object in
// the order of its revisions. The object is shared with the request that wrote it: a listener copies what it keeps.
type Listener interface {
	// Set is called for an object that exists: it was stored before the feed began, was created, or was changed.
	Set(obj runtime.Object)
	// Delete is called for an object that was deleted, with its last state, or with a PartialObjectMetadata if the feed
	// does not have that state.
	Delete(obj runtime.Object)
}

// Feed is the ordered stream of the changes of one resource.
type Feed struct {
	resource   schema.GroupResource
	listeners  []Listener
	soleWriter bool // whether no other process writes the storage
	appended   bool // see Mirror.Append

	// raw, prefix and newList are what the feed lists and watches.
	raw     storage.Interface
	prefix  string
	newList func() runtime.Object

	clock  clock.PassiveClock
	epoch  time.Time // when now is 0
	timing timing
	maxLag time.Duration

	synced     chan struct{} // closed once every object that was stored at the start has been delivered
	unreadable chan error    // receives one error if the first list contains objects that cannot be read
	started    sync.Once     // makes one of these two happen, once
	latest     atomic.Uint64 // see Latest
	provedAt   atomic.Int64  // everything written before this instant of now has been delivered; written with mu held

	mu            sync.Mutex
	delivered     map[string]delivery // by namespace and name
	watchRevision uint64              // the watch has delivered everything up to this revision
	pending       checkpoint          // the next proof; its revision is 0 if there is none

	catchUps catchUps
	attempt  atomic.Int64 // the number of the current attempt of Run
}

// Listen adds a listener. It must not be called after Run.
func (f *Feed) Listen(l Listener) { f.listeners = append(f.listeners, l) }

// SoleWriter reports whether no other process writes the objects.
func (f *Feed) SoleWriter() bool { return f.soleWriter }

// Latest returns the highest revision that this feed has delivered, or 0.
func (f *Feed) Latest() uint64 { return f.latest.Load() }

// Reached returns the revision up to which the watch has delivered everything, or 0.
func (f *Feed) Reached() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watchRevision
}

// listTimeout bounds the reading of everything that is stored. It is long enough for the largest stores.
const listTimeout = time.Minute

// Run lists and watches the resource until ctx ends. It must be called once.
func (f *Feed) Run(ctx context.Context) {
	backoff := wait.Backoff{Duration: 20 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 9, Cap: 5 * time.Second}
	delay := backoff
	for ; ctx.Err() == nil; f.attempt.Add(1) {
		opened, err := f.listAndWatch(f.withOwnStream(ctx))
		if f.watchMadeProgress(opened) {
			delay = backoff
		}
		if ctx.Err() != nil {
			return
		}
		if isUnreadable(err) {
			f.started.Do(func() { f.unreadable <- err })
		}
		klog.V(1).InfoS("Watch of storage ended; listing again", "resource", f.resource, "reason", err)
		select {
		case <-ctx.Done():
		case <-time.After(delay.Step()):
		}
	}
}

// watchMadeProgress reports whether there was a proof of freshness since the watch was opened, at the given instant of
// now; 0 means that it was not opened. If watches are opened but make no progress, Run lists less and less often.
func (f *Feed) watchMadeProgress(opened time.Duration) bool {
	return opened > 0 && (f.soleWriter || time.Duration(f.provedAt.Load()) > opened)
}

// withOwnStream returns a context whose watches share no gRPC stream with the watches of an earlier attempt. The etcd client uses
// one stream for all watches with the same metadata. Without this, a new watch would use the connection that hangs; each new
// stream uses the next connection in turn.
func (f *Feed) withOwnStream(ctx context.Context) context.Context {
	attempt := f.attempt.Load()
	if attempt == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "lanyard-watch-attempt", strconv.FormatInt(attempt, 10))
}

// isUnreadable reports whether an error means that objects cannot be decrypted or decoded. Trying again does not help then.
// It does help if the storage does not respond.
func isUnreadable(err error) bool {
	var internal storage.InternalError
	var fault *storage.StorageError
	return errors.As(err, &internal) || errors.As(err, &fault) && storage.IsCorruptObject(fault)
}

// listAndWatch delivers changes until the watch ends. It returns the instant of now when the watch was opened, or 0, and
// the reason for the end, which is never nil.
func (f *Feed) listAndWatch(ctx context.Context) (opened time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	revision, err := f.list(ctx)
	if err != nil {
		return 0, fmt.Errorf("list %s: %w", f.resource, err)
	}
	w, err := f.raw.Watch(ctx, f.prefix, storage.ListOptions{
		ResourceVersion: revision, Predicate: everythingWithBookmarks(), Recursive: true, ProgressNotify: true,
	})
	if err != nil {
		return 0, fmt.Errorf("watch %s: %w", f.resource, err)
	}
	defer w.Stop()
	f.started.Do(func() { close(f.synced) })
	opened = f.now()
	if !f.soleWriter {
		go func() { cancel(f.proveFreshness(ctx, opened)) }()
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

func everythingWithBookmarks() storage.SelectionPredicate {
	p := storage.Everything
	p.AllowWatchBookmarks = true
	return p
}

// list delivers everything that is stored, and the deletion of everything that is not stored any more. It returns the
// revision to watch from.
func (f *Feed) list(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	began, present := f.now(), map[string]bool{}
	text, err := f.eachListed(ctx, func(obj runtime.Object) {
		if !f.appended {
			present[keyOf(obj)] = true
		}
		f.deliverListed(obj)
	})
	if err != nil {
		return "", err
	}
	revision, err := storage.APIObjectVersioner{}.ParseResourceVersion(text)
	if err != nil {
		return "", err
	}
	f.deleteMissing(present, revision)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recordProof(began)
	return text, nil
}

// receive handles one event of the watch.
func (f *Feed) receive(event watch.Event) error {
	switch event.Type {
	case watch.Error:
		return fmt.Errorf("watch %s: %v", f.resource, event.Object)
	case watch.Added, watch.Modified:
		f.deliverWatched(event.Object, false)
	case watch.Deleted:
		f.deliverWatched(event.Object, true)
	case watch.Bookmark:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.advanceWatch(revisionOf(event.Object))
	}
	return nil
}
