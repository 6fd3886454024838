package ledger

import (
	"context"
	"errors"
	"sort"
	"sync"
)

// EventType says what happened to a record.
type EventType int

const (
	// Added means that a credential was issued.
	Added EventType = iota + 1
	// Deleted means that a credential was revoked or expired.
	Deleted
)

// Event is a change of a record. The use of a credential is no event.
type Event struct {
	Type EventType
	// Revision is the revision of memory after the event. It never decreases from one event to the next.
	Revision uint64
	// One of Token and Certificate is set: the record, with Revision as its revision. Receivers must not modify it.
	Token       *TokenRecord
	Certificate *CertificateRecord

	// late means that memory had this revision before the event: a record expired, or a batch arrived after a later one.
	late bool
}

// missing reports whether the event may be missing in what was read from memory at a revision.
func (e *Event) missing(revision uint64) bool {
	return e.Revision > revision || e.Revision == revision && e.late
}

// historySize is the number of events that memory keeps.
const historySize = 8192

// ErrTooOld means that memory no longer has all events since a revision. Read the records again, and watch from there.
var ErrTooOld = errors.New("the revision is too old: read the records again")

// history keeps the last events.
type history struct {
	mu sync.Mutex
	// events is a ring once it has historySize events. The event with number n is at n%historySize.
	events []Event
	first  uint64 // the number of the oldest event
	next   uint64
	// dropped is the latest event that is no longer kept. Its records are not set.
	dropped Event
	started bool
	changed chan struct{} // closed and replaced when an event is added; nil if nobody waits
}

// start makes the history begin at a revision. Events before the start are not kept.
func (h *history) start(revision uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.started {
		h.started = true
		h.dropped = Event{Revision: revision}
	}
}

func (h *history) add(events []Event) {
	if len(events) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.started {
		return
	}
	for _, e := range events {
		if len(h.events) < historySize {
			h.events = append(h.events, e)
		} else {
			oldest := &h.events[h.next%historySize]
			h.dropped = Event{Revision: oldest.Revision, late: oldest.late}
			*oldest = e
			h.first++
		}
		h.next++
	}
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// Watch delivers the events after a revision, in order. Only one goroutine may use it. It holds no resources.
type Watch struct {
	history *history
	after   uint64
	next    uint64 // the number of the next event
}

// Watch returns a watch of the events after a revision, which Revision returned before the records were read. An event
// that what was read already contains may be delivered too, if it arrived at that revision. The error is ErrTooOld if
// memory no longer has all these events, and before Synced was called.
func (m *Memory) Watch(after uint64) (*Watch, error) {
	h := &m.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.started || h.dropped.missing(after) {
		return nil, ErrTooOld
	}
	n := sort.Search(len(h.events), func(i int) bool { return h.at(h.first + uint64(i)).missing(after) })
	return &Watch{history: h, after: after, next: h.first + uint64(n)}, nil
}

func (h *history) at(number uint64) *Event { return &h.events[number%historySize] }

// maxEvents is the limit for the events that Next returns at once.
const maxEvents = 256

// Next waits for events and returns them. The error is ErrTooOld if the receiver is so slow that events were lost, and
// the context's error when it ends.
func (w *Watch) Next(ctx context.Context) ([]Event, error) {
	for {
		events, changed, err := w.take()
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take returns the events that there are, and if there are none, a channel that is closed when there are.
func (w *Watch) take() ([]Event, <-chan struct{}, error) {
	h := w.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.next < h.first {
		return nil, nil, ErrTooOld
	}
	var events []Event
	for ; w.next < h.next && len(events) < maxEvents; w.next++ {
		// A revision that another replica answered may be ahead of this memory.
		if e := h.at(w.next); e.missing(w.after) {
			events = append(events, *e)
		}
	}
	if len(events) > 0 {
		return events, nil, nil
	}
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return nil, h.changed, nil
}
