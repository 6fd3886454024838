package mirror

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
)

const (
	// historyBytes is about what the watch cache of a resource keeps of past events; it keeps up to four times as much
	// while the size of objects changes, and always a hundred events. A client that is further behind lists again.
	historyBytes = 16 << 20
	// eventBytes is what an event takes beside the serialized object.
	eventBytes = 1 << 10
)

// bounded is storage whose watch cache keeps a history bounded by bytes. The cache itself bounds it by time: the 75
// seconds before the latest event, whatever the events take. So the events of its watch are given times between which
// the bytes pass as well as the seconds: 75 seconds for each historyBytes. While fewer bytes than that come, the times
// are the real ones.
//
// The cache uses these times for nothing else but its metrics of latency, which are too low during such a burst.
type bounded struct{ storage.Interface }

// Watch implements storage.Interface.
func (b bounded) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	w, err := b.Interface.Watch(ctx, key, opts)
	if err != nil || !opts.RecordTimestamps {
		return w, err
	}
	h := &history{}
	return watch.Filter(w, func(event watch.Event) (watch.Event, bool) {
		if timed, ok := event.Object.(storage.WatchEventWithRecordTime); ok {
			event.Object = &timedObject{Object: timed.Unwrap(), at: h.time(timed)}
		}
		return event, true
	}), nil
}

// history keeps the time of the latest event.
type history struct{ latest time.Time }

// time returns when an event happens: when it did, or as long after the previous one as its bytes take.
func (h *history) time(event storage.WatchEventWithRecordTime) time.Time {
	size := eventBytes
	if sized, ok := event.Unwrap().(interface{ Size() int }); ok {
		size += sized.Size()
	}
	after := h.latest.Add(cacher.DefaultEventFreshDuration * time.Duration(size) / historyBytes)
	if h.latest = event.RecordTime(); h.latest.Before(after) {
		h.latest = after
	}
	return h.latest
}

// timedObject is an object on its way to the watch cache, which unwraps it.
type timedObject struct {
	runtime.Object
	at time.Time
}

var _ storage.WatchEventWithRecordTime = &timedObject{}

// GetObjectMeta implements metav1.ObjectMetaAccessor.
func (t *timedObject) GetObjectMeta() metav1.Object {
	m, _ := meta.Accessor(t.Object)
	return m
}

// DeepCopyObject implements runtime.Object.
func (t *timedObject) DeepCopyObject() runtime.Object {
	return &timedObject{Object: t.Object.DeepCopyObject(), at: t.at}
}

// RecordTime implements storage.WatchEventWithRecordTime.
func (t *timedObject) RecordTime() time.Time { return t.at }

// Unwrap implements storage.WatchEventWithRecordTime.
func (t *timedObject) Unwrap() runtime.Object { return t.Object }
