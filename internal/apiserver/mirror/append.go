package mirror

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
)

// Append is Unserved for a resource whose objects add up: no object is needed to understand another,
// and what an object says stays true after the object has been deleted. The storage has no watch cache, its feed keeps nothing
// of the objects, so that there may be millions, and the listeners hear of no deletion. A listener may get an object again after
// a restart of the watch.
//
// Append must be called before Run. prefix begins with a slash.
func (m *Mirror) Append(config *storagebackend.ConfigForResource, prefix string, newFunc, newListFunc func() runtime.Object,
) (storage.Interface, *Feed, factory.DestroyFunc, error) {
	store, feed, closeStore, err := m.Unserved(config, prefix, newFunc, newListFunc)
	if err == nil {
		feed.appended = true
	}
	return store, feed, closeStore, err
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
