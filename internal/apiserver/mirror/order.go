package mirror

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// delivery is the change of one object that listeners received last.
type delivery struct {
	revision uint64
	deleted  bool
	object   runtime.Object // its metadata
}

// deliverWritten delivers a write of this process. It drops a change that the watch has passed already, because the watch
// delivered that change or a newer one. A deletion is remembered until the watch is past it, so that an older event that
// is still on its way cannot bring the object back.
func (f *Feed) deliverWritten(obj runtime.Object, deleted bool) {
	key, revision := keyOf(obj), revisionOf(obj)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.raiseLatest(revision) // also if the change is dropped: a later read must not be older than this write
	if revision <= f.watchRevision || revision <= f.delivered[key].revision || f.appended && deleted {
		return
	}
	f.delivered[key] = f.deliveryOf(obj, revision, deleted)
	f.notify(obj, deleted)
}

// deliveryOf returns what is remembered of a delivery. Of appended objects only the revision is needed.
func (f *Feed) deliveryOf(obj runtime.Object, revision uint64, deleted bool) delivery {
	if f.appended {
		return delivery{revision: revision}
	}
	return delivery{revision: revision, deleted: deleted, object: metadataOf(obj)}
}

// deliverWatched delivers an event of the watch and records, in the same critical section, how far the watch is. Between
// the two, deliverWritten would take the same change for a new one.
func (f *Feed) deliverWatched(obj runtime.Object, deleted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deliverStored(obj, deleted)
	f.advanceWatch(revisionOf(obj))
}

// deliverListed delivers an item of a list. The items are not sorted by revision, so only deleteMissing, after the last
// item, records how far the list went.
func (f *Feed) deliverListed(obj runtime.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deliverStored(obj, false)
}

// deliverStored delivers what the storage holds, unless the listeners have it. mu must be held.
func (f *Feed) deliverStored(obj runtime.Object, deleted bool) {
	if f.appended {
		f.deliverAppended(obj, deleted)
	} else {
		f.deliverIfNewer(obj, deleted)
	}
}

// deleteMissing delivers the deletion of every object that a list at the given revision does not contain. present has the
// keys of the objects that it does contain.
func (f *Feed) deleteMissing(present map[string]bool, revision uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, last := range f.delivered {
		if present[key] || last.revision > revision {
			continue
		}
		delete(f.delivered, key)
		if !last.deleted && !f.appended {
			f.notify(last.object, true)
		}
	}
	f.advanceWatch(revision)
}

// deliverIfNewer delivers what the storage holds, unless the listeners have that or something newer. mu must be held.
func (f *Feed) deliverIfNewer(obj runtime.Object, deleted bool) {
	key, revision := keyOf(obj), revisionOf(obj)
	last := f.delivered[key]
	if revision <= last.revision {
		if deleted && last.deleted && revision == last.revision {
			delete(f.delivered, key) // the watch has reached the deletion; nothing older can follow
		}
		return
	}
	f.raiseLatest(revision)
	if deleted {
		delete(f.delivered, key)
	} else {
		f.delivered[key] = delivery{revision: revision, object: metadataOf(obj)}
	}
	f.notify(obj, deleted)
}

// notify calls the listeners. mu must be held.
func (f *Feed) notify(obj runtime.Object, deleted bool) {
	for _, l := range f.listeners {
		if deleted {
			l.Delete(obj)
		} else {
			l.Set(obj)
		}
	}
}

// advanceWatch records that everything up to a revision has been delivered. mu must be held.
func (f *Feed) advanceWatch(revision uint64) {
	f.watchRevision = max(f.watchRevision, revision)
	f.resolveCheckpoint()
	f.catchUps.reach(f.watchRevision)
}

// raiseLatest records a revision that has been delivered. mu must be held.
func (f *Feed) raiseLatest(revision uint64) {
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

// revisionOf returns the revision of an object's last write, or 0 for an object that was not stored. Nothing is delivered
// at revision 0.
func revisionOf(obj runtime.Object) uint64 {
	revision, err := storage.APIObjectVersioner{}.ObjectResourceVersion(obj)
	if err != nil {
		return 0
	}
	return revision
}

// metadataOf returns the part of an object that is kept for delivering its deletion later.
func metadataOf(obj runtime.Object) runtime.Object {
	m, err := meta.Accessor(obj)
	if err != nil {
		return obj
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUID(), ResourceVersion: m.GetResourceVersion(),
	}}
}
