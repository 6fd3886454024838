package issued

import (
	"context"
	"errors"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/ledger"
)

// Watch implements rest.Watcher. Records never change, so the events are ADDED and DELETED. A use of a credential and a change of
// its phase are no events.
func (s *REST[R]) Watch(ctx context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	f, err := s.newFilter(ctx, options)
	if err != nil {
		return nil, err
	}
	if len(f.phases) > 0 {
		return nil, apierrors.NewBadRequest("a watch cannot select by " + phaseField + ", because a change of the phase is no event")
	}
	from, initial, err := s.watchStart(ctx, options)
	if err != nil {
		return nil, err
	}
	changes, err := s.Memory.Watch(from)
	if err != nil {
		return nil, expired(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher[R]{
		rest: s, filter: f, changes: changes, revision: from, sent: from, bookmarks: options.AllowWatchBookmarks,
		events: make(chan watch.Event, 16), cancel: cancel,
	}
	if initial {
		_ = s.each(&f, "", 0, func(record *R) (bool, error) {
			if *s.revision(record) <= from {
				w.initial = append(w.initial, *record)
			}
			return true, nil
		})
		w.marksInitial = options.SendInitialEvents != nil && *options.SendInitialEvents
	}
	go w.run(ctx)
	return w, nil
}

// watchStart returns the revision after which a watch gets changes, and whether it first gets the records that there are. Without
// a resource version, or with "0", it does, unless the client forbids it.
func (s *REST[R]) watchStart(ctx context.Context, options *internalversion.ListOptions) (from uint64, initial bool, err error) {
	version := options.ResourceVersion
	asked := options.SendInitialEvents != nil && *options.SendInitialEvents
	if revision, err := parseVersion(version); err != nil || revision > 0 && !asked {
		return revision, false, err
	}
	if err := s.settle(ctx, version); err != nil {
		return 0, false, err
	}
	return s.Memory.Revision(), options.SendInitialEvents == nil || asked, nil
}

// watcher sends the changes that a filter selects.
type watcher[R any] struct {
	rest    *REST[R]
	filter  filter[R]
	changes *ledger.Watch

	initial      []R
	marksInitial bool // whether a bookmark follows the initial events
	bookmarks    bool

	revision uint64 // up to which all changes were sent
	sent     uint64 // the resource version that the client knows

	events chan watch.Event
	cancel context.CancelFunc
	once   sync.Once
}

// ResultChan implements watch.Interface.
func (w *watcher[R]) ResultChan() <-chan watch.Event { return w.events }

// Stop implements watch.Interface.
func (w *watcher[R]) Stop() { w.once.Do(w.cancel) }

func (w *watcher[R]) run(ctx context.Context) {
	defer close(w.events)
	defer w.Stop()
	for i := range w.initial {
		if !w.sendRecord(ctx, watch.Added, &w.initial[i]) {
			return
		}
	}
	w.initial = nil
	if w.marksInitial && w.bookmarks && !w.sendBookmark(ctx, map[string]string{metav1.InitialEventsAnnotationKey: "true"}) {
		return
	}
	for events := []ledger.Event(nil); ; {
		next, ok := w.next(ctx, len(events) > 0)
		if !ok || !w.sendEvents(ctx, events, next) {
			return
		}
		events = next
	}
}

// next returns the next events that the filter selects. If poll is set and there are none, it returns none; else it waits for
// events, and sends bookmarks meanwhile. ok is false if the watch ends.
func (w *watcher[R]) next(ctx context.Context, poll bool) (events []ledger.Event, ok bool) {
	for {
		period := w.rest.BookmarkPeriod
		if poll {
			period = 0
		}
		known := w.rest.Memory.Revision()
		waiting, stop := context.WithTimeout(ctx, period)
		events, err := w.changes.Next(waiting)
		stop()
		switch {
		case err == nil:
			w.revision = max(w.revision, events[len(events)-1].Revision)
			if events = slices.DeleteFunc(events, w.ignores); len(events) > 0 {
				return events, true
			}
			continue
		case errors.Is(err, ledger.ErrTooOld):
			w.send(ctx, watch.Event{Type: watch.Error, Object: statusOf(expired(err))})
			return nil, false
		case ctx.Err() != nil:
			return nil, false
		case poll:
			return nil, true
		}
		// Next would have returned the events up to this revision.
		w.revision = max(w.revision, known)
		if w.bookmarks && w.sent < w.revision && !w.sendBookmark(ctx, nil) {
			return nil, false
		}
	}
}

// ignores reports whether the filter does not select an event.
func (w *watcher[R]) ignores(event ledger.Event) bool {
	record := w.rest.changed(&event)
	return record == nil || !w.filter.match(record)
}

// sendEvents sends events. next are those that follow. Of several events of one revision, only the last has this revision. Those before
// it have the one before: a client that loses the connection between them gets all of them again.
func (w *watcher[R]) sendEvents(ctx context.Context, events, next []ledger.Event) bool {
	for i, event := range events {
		following := next
		if i+1 < len(events) {
			following = events[i+1:]
		}
		sent := *w.rest.changed(&event)
		if version := w.rest.revision(&sent); len(following) > 0 && following[0].Revision == event.Revision {
			*version = max(event.Revision-1, w.sent)
		}
		kind := watch.Added
		if event.Type == ledger.Deleted {
			kind = watch.Deleted
		}
		if !w.sendRecord(ctx, kind, &sent) {
			return false
		}
		w.sent = *w.rest.revision(&sent)
	}
	return true
}

// sendRecord sends an event. It returns false if the watch ends.
func (w *watcher[R]) sendRecord(ctx context.Context, kind watch.EventType, record *R) bool {
	object, err := w.rest.objectOf(ctx, record)
	if err != nil {
		w.send(ctx, watch.Event{Type: watch.Error, Object: statusOf(err)})
		return false
	}
	return w.send(ctx, watch.Event{Type: kind, Object: object})
}

func (w *watcher[R]) sendBookmark(ctx context.Context, annotations map[string]string) bool {
	object := w.rest.New()
	accessor, err := meta.Accessor(object)
	if err != nil {
		return false
	}
	accessor.SetResourceVersion(versionText(w.revision))
	accessor.SetAnnotations(annotations)
	w.sent = w.revision
	return w.send(ctx, watch.Event{Type: watch.Bookmark, Object: object})
}

func (w *watcher[R]) send(ctx context.Context, event watch.Event) bool {
	select {
	case w.events <- event:
		return true
	case <-ctx.Done():
		return false
	}
}

// expired returns the error of a client that asks for changes which are not remembered any more. The client then lists again.
func expired(err error) error {
	if errors.Is(err, ledger.ErrTooOld) {
		return registry.NewTooOld()
	}
	return err
}

// statusOf returns the object of an event with an error.
func statusOf(err error) runtime.Object {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	return &status
}
