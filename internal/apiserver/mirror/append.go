package mirror

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
)

// Append makes the storage of a resource that is not served and whose objects add up: no object is needed to understand another,
// and what an object says stays true after the object has been deleted. The storage has no watch cache, its feed keeps nothing
// of the objects, so that there may be millions, and the listeners hear of no deletion. A listener may get an object again after
// a restart of the watch.
//
// Append must be called before Run. prefix begins with a slash.
func (m *Mirror) Append(config *storagebackend.ConfigForResource, prefix string, newFunc, newListFunc func() runtime.Object,
) (storage.Interface, *Feed, factory.DestroyFunc, error) {
	raw, closeRaw, err := generic.NewRawStorage(config, newFunc, newListFunc, prefix)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("storage of %s: %w", config.GroupResource, err)
	}
	feed := newFeed(config.GroupResource, Config{SoleWriter: m.soleWriter, MaxLag: m.maxLag})
	feed.appended = true
	feed.raw, feed.prefix, feed.newList = raw, prefix, newListFunc
	m.feeds[config.GroupResource] = feed
	return &deliveringStorage{Interface: raw, feed: feed, newObj: newFunc}, feed, closeRaw, nil
}

// deliverAppended delivers an object of a list or an event, unless the watch has passed it or the write that made it has
// delivered it. mu must be held.
func (f *Feed) deliverAppended(obj runtime.Object, deleted bool) {
	revision := revisionOf(obj)
	if deleted || revision <= f.watchRevision {
		return
	}
	f.raiseLatest(revision)
	if key := keyOf(obj); f.delivered[key].revision >= revision {
		if f.delivered[key].revision == revision {
			delete(f.delivered, key)
		}
		return
	}
	f.notify(obj, false)
}
