package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// next returns the events that a watch has now, each as its type, token and revision.
func next(t *testing.T, w *Watch) []string {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	names := map[string]string{}
	for n := range 10 {
		names[testUUID(n)] = fmt.Sprint(n)
	}
	found := []string{}
	for {
		events, err := w.Next(ended)
		if errors.Is(err, context.Canceled) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			found = append(found, fmt.Sprintf("%s %s at %d", map[EventType]string{Added: "added", Deleted: "deleted"}[e.Type], names[e.Token.ID], e.Revision))
			if e.Token.Revision != e.Revision || e.Token.Namespace != "team-a" {
				t.Errorf("the event at %d has the record %+v", e.Revision, e.Token)
			}
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakePassiveClock(testNow)
	m := NewMemory(clock)
	apply := func(revision uint64, token int) {
		m.Apply(&Batch{Tokens: []Token{testToken(token)}}, revision)
	}
	apply(5, 1)
	if _, err := m.Watch(5); !errors.Is(err, ErrTooOld) {
		t.Errorf("a watch before the start: %v", err)
	}
	m.Synced(10)
	if _, err := m.Watch(9); !errors.Is(err, ErrTooOld) {
		t.Errorf("a watch from before the start: %v", err)
	}
	watch := func(after uint64) *Watch {
		w, err := m.Watch(after)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	live, ahead := watch(10), watch(13) // Another replica is ahead, and answered 13.
	apply(11, 2)
	m.Apply(&Batch{Revocations: []Revocation{{ID: testUUID(1), Expires: testNow.Add(time.Hour)}}}, 12)
	m.Apply(&Batch{Uses: []Use{{ID: testUUID(2), At: testNow}}}, 13)
	apply(14, 3)
	apply(9, 4) // It arrives late, and is an event at 14.
	apply(9, 4)
	short := testToken(5)
	short.Expires = testNow.Add(time.Minute)
	m.Apply(&Batch{Tokens: []Token{short}}, 15)
	clock.SetTime(testNow.Add(time.Minute))
	m.Sweep()
	want := []string{"added 2 at 11", "deleted 1 at 12", "added 3 at 14", "added 4 at 14", "added 5 at 15", "deleted 5 at 15"}
	for after, skipped := range map[uint64]int{10: 0, 11: 1, 12: 2, 13: 2, 14: 3, 15: 5, 16: 6} {
		if got := next(t, watch(after)); !slices.Equal(got, want[skipped:]) {
			t.Errorf("events after %d: %q, want %q", after, got, want[skipped:])
		}
	}
	if got := next(t, live); !slices.Equal(got, want) {
		t.Errorf("events of the open watch: %q, want %q", got, want)
	}
	if got := next(t, ahead); !slices.Equal(got, want[2:]) {
		t.Errorf("events of the watch that was ahead: %q, want %q", got, want[2:])
	}
}

// TestWatchWaits checks that Next returns when an event arrives.
func TestWatchWaits(t *testing.T) {
	t.Parallel()
	m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
	m.Synced(1)
	w, err := m.Watch(1)
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan []Event)
	go func() {
		events, _ := w.Next(t.Context())
		received <- events
	}()
	m.Apply(&Batch{Tokens: []Token{testToken(1)}}, 2)
	if events := <-received; len(events) != 1 || events[0].Token.ID != testUUID(1) {
		t.Errorf("events %+v", events)
	}
}

func TestWatchTooSlow(t *testing.T) {
	t.Parallel()
	m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
	m.Synced(1)
	slow, err := m.Watch(1)
	if err != nil {
		t.Fatal(err)
	}
	token := Token{Namespace: "a", Expires: testNow.Add(time.Hour)}
	for n := range historySize + 1 {
		token.ID = fmt.Sprint(n)
		m.Apply(&Batch{Tokens: []Token{token}}, uint64(n+2))
	}
	if _, err := slow.Next(t.Context()); !errors.Is(err, ErrTooOld) {
		t.Errorf("a slow watch: %v", err)
	}
	if _, err := m.Watch(1); !errors.Is(err, ErrTooOld) {
		t.Errorf("a watch from the first revision: %v", err)
	}
	w, err := m.Watch(2)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < historySize; {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if n++; e.Revision != uint64(n+2) || e.Token.ID != fmt.Sprint(n) {
				t.Fatalf("event %d at revision %d is of token %s", n, e.Revision, e.Token.ID)
			}
		}
	}
}
