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
	// historyBytes is about how many bytes of past events the watch cache of a resource keeps. It keeps up to four times as
	// much while the size of objects changes, and always a hundred events. A client that is further behind lists again.
	historyBytes = 16 << 20
	// eventBytes is the size of an event without its serialized object.
	eventBytes = 1 << 10
)

// boundedHistory is storage whose watch cache keeps a history that is bounded by bytes. The cache itself bounds its history
// by time: it keeps the 75 seconds before the latest event, however large the events are. So the events of its watch get
// later times if they are large: at least 75 seconds pass for each historyBytes. Smaller amounts keep their real times.
//
// The cache uses these times for nothing else but its metrics of latency, which are too low while the times are later than
// the real ones.
type boundedHistory struct{ storage.Interface }

// Watch implements storage.Interface.
func (b boundedHistory) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	w, err := b.Interface.Watch(ctx, key, opts)
	if err != nil || !opts.RecordTimestamps {
		return w, err
	}
	times := &eventTimes{}
	return watch.Filter(w, func(event watch.Event) (watch.Event, bool) {
		if timed, ok := event.Object.(storage.WatchEventWithRecordTime); ok {
			event.Object = &timedObject{Object: timed.Unwrap(), at: times.next(timed)}
		}
		return event, true
	}), nil
}

// eventTimes computes the times of successive events.
type eventTimes struct{ latest time.Time }

// next returns the time of the next event: its real time, or, if that is earlier, the time of the previous event and as much
// as its bytes take.
func (t *eventTimes) next(event storage.WatchEventWithRecordTime) time.Time {
	size := eventBytes
	if sized, ok := event.Unwrap().(interface{ Size() int }); ok {
		size += sized.Size()
	}
	after := t.latest.Add(cacher.DefaultEventFreshDuration * time.Duration(size) / historyBytes)
	if t.latest = event.RecordTime(); t.latest.Before(after) {
		t.latest = after
	}
	return t.latest
}

// timedObject is an object with the time of its event. The watch cache unwraps it.
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
