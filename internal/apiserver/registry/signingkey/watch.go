package signingkey

import (
	"context"
	"reflect"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver/registry"
)

// Watch implements rest.Watcher. It can begin at the present keys only: a client that names earlier ones is told to list again. A
// change of the number of live tokens is no event. Keys in files have no events.
func (r *REST) Watch(ctx context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	if options == nil {
		options = &internalversion.ListOptions{}
	}
	asked := options.SendInitialEvents != nil && *options.SendInitialEvents
	if err := r.settle(ctx, options.ResourceVersion); err != nil {
		return nil, err
	}
	all, revision := r.keys()
	w := &watcher{rest: r, options: options, known: map[string]*identity.SigningKey{}, revision: revision, events: make(chan watch.Event)}
	initial := options.ResourceVersion == "" || options.ResourceVersion == "0" || asked
	if !initial && options.ResourceVersion != versionOf(revision) {
		if _, err := strconv.ParseUint(options.ResourceVersion, 10, 64); err != nil {
			return nil, apierrors.NewBadRequest("invalid resource version: " + err.Error())
		}
		return nil, registry.NewTooOld()
	}
	if !initial {
		w.learn(all)
		all = nil
	}
	ctx, w.cancel = context.WithCancel(ctx)
	go w.run(ctx, all, asked && options.AllowWatchBookmarks)
	return w, nil
}

// watcher sends the differences between the keys that its client knows and those in force.
type watcher struct {
	rest     *REST
	options  *internalversion.ListOptions
	known    map[string]*identity.SigningKey // by name
	revision uint64
	events   chan watch.Event
	cancel   context.CancelFunc
}

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.events }

// Stop implements watch.Interface.
func (w *watcher) Stop() { w.cancel() }

func (w *watcher) learn(keys []*identity.SigningKey) {
	for _, key := range keys {
		w.known[key.Name] = key
	}
}

func (w *watcher) run(ctx context.Context, initial []*identity.SigningKey, marks bool) {
	defer close(w.events)
	defer w.cancel()
	for _, key := range initial {
		if !w.send(ctx, watch.Added, key) {
			return
		}
	}
	w.learn(initial)
	if marks && !w.sendBookmark(ctx) {
		return
	}
	for w.wait(ctx) {
		var now []*identity.SigningKey
		now, w.revision = w.rest.keys()
		if !w.sendDifferences(ctx, now) {
			return
		}
	}
}

// wait returns true when there are newer keys, and false when the watch ends.
func (w *watcher) wait(ctx context.Context) bool {
	if w.rest.Keyring == nil {
		<-ctx.Done()
		return false
	}
	return w.rest.Keyring.Newer(ctx, w.revision) == nil
}

// sendDifferences sends what has changed since the client learned of the keys last.
func (w *watcher) sendDifferences(ctx context.Context, now []*identity.SigningKey) bool {
	before := w.known
	w.known = map[string]*identity.SigningKey{}
	w.learn(now)
	for _, key := range now {
		kind := watch.Added
		if old := before[key.Name]; old != nil {
			if sameKey(old, key) {
				continue
			}
			kind = watch.Modified
		}
		if !w.send(ctx, kind, key) {
			return false
		}
	}
	for name, key := range before {
		if w.known[name] != nil {
			continue
		}
		gone := key.DeepCopy()
		gone.ResourceVersion = versionOf(w.revision)
		if !w.send(ctx, watch.Deleted, gone) {
			return false
		}
	}
	return true
}

// sameKey reports whether two objects of a key differ in nothing but the revision and the number of tokens.
func sameKey(a, b *identity.SigningKey) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	for _, key := range []*identity.SigningKey{a, b} {
		key.ResourceVersion, key.Status.LiveTokens = "", nil
	}
	return reflect.DeepEqual(a, b)
}

// send sends an event about a key, unless the client does not select it. It returns false if the watch ends.
func (w *watcher) send(ctx context.Context, kind watch.EventType, key *identity.SigningKey) bool {
	if !selects(w.options, key) {
		return true
	}
	return w.deliver(ctx, watch.Event{Type: kind, Object: key.DeepCopy()})
}

// sendBookmark marks the end of the initial events.
func (w *watcher) sendBookmark(ctx context.Context) bool {
	mark := &identity.SigningKey{ObjectMeta: metav1.ObjectMeta{
		ResourceVersion: versionOf(w.revision), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
	}}
	return w.deliver(ctx, watch.Event{Type: watch.Bookmark, Object: mark})
}

func (w *watcher) deliver(ctx context.Context, event watch.Event) bool {
	select {
	case w.events <- event:
		return true
	case <-ctx.Done():
		return false
	}
}
