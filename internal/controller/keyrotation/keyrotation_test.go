package keyrotation

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/signingkey/rotation"
)

// memory is keys that are stored in memory.
type memory struct {
	policy rotation.Policy

	mu    sync.Mutex
	ring  rotation.Ring
	calls int
	err   error
}

func (m *memory) Policy() rotation.Policy { return m.policy }

func (m *memory) Change(_ context.Context, change func(rotation.Ring) (rotation.Ring, error)) (rotation.Ring, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.err != nil {
		return rotation.Ring{}, m.err
	}
	next, err := change(m.ring)
	if err == nil {
		m.ring = next
	}
	return next, err
}

func (m *memory) called() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// events records the reasons and messages of events.
type events struct{ all []string }

func (e *events) Event(object runtime.Object, eventType, reason, message string) {
	e.all = append(e.all, object.(*corev1.ObjectReference).Name+" "+eventType+" "+reason+": "+message)
}

// since returns the events since the last call.
func (e *events) since() []string {
	all := e.all
	e.all = nil
	return all
}

// live is the number of live tokens of each key, or an error.
type live struct {
	n   int
	err error
}

func (l *live) LiveTokens(string) (int, error) { return l.n, l.err }

type fixture struct {
	*Controller
	keys   *memory
	events *events
	live   *live
	clock  *clocktesting.FakeClock
}

func newFixture() *fixture {
	f := &fixture{
		keys:   &memory{policy: rotation.Policy{Period: 24 * time.Hour, Lead: time.Hour, Linger: 10 * time.Minute}},
		events: &events{}, live: &live{}, clock: clocktesting.NewFakeClock(time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)),
	}
	reference := func(kid string) *corev1.ObjectReference {
		return &corev1.ObjectReference{Kind: "SigningKey", Name: kid}
	}
	f.Controller = New(Config{Keys: f.keys, Tokens: f.live, Events: f.events, Reference: reference, Clock: f.clock})
	return f
}

// after moves the clock, looks once, and returns the events.
func (f *fixture) after(t *testing.T, d time.Duration) []string {
	t.Helper()
	f.clock.Step(d)
	if err := f.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f.events.since()
}

// wantEvents checks that there are as many events as parts, and that each contains its part.
func wantEvents(t *testing.T, got []string, parts ...string) {
	t.Helper()
	if len(got) != len(parts) {
		t.Fatalf("events %q, want %q", got, parts)
	}
	for i, part := range parts {
		if !strings.Contains(got[i], part) {
			t.Errorf("event %q lacks %q", got[i], part)
		}
	}
}

// TestEvents follows a key through its states: each change is an event about the key.
func TestEvents(t *testing.T) {
	t.Parallel()
	f := newFixture()
	wantEvents(t, f.after(t, 0), "Normal Published: ", "Normal Signing: the key signs ES256 tokens")
	wantEvents(t, f.after(t, 23*time.Hour), "Normal Published: the key is in the key set, and signs ES256 tokens from 2026-11-29T12:00:00Z")
	wantEvents(t, f.after(t, 0))
	f.live.n = 1
	wantEvents(t, f.after(t, time.Hour), "Normal Verifying: ", "Normal Signing: ")
	wantEvents(t, f.after(t, time.Hour))
	f.live.n = 0
	wantEvents(t, f.after(t, time.Minute), "Normal Retired: ")
}

// TestRefusals checks that a failure of one part is reported, and that the others are done.
func TestRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture()
	f.after(t, 0)
	f.after(t, 23*time.Hour)
	f.after(t, time.Hour)
	unknown := errors.New("the ledger is behind")
	f.live.err = unknown
	f.clock.Step(23 * time.Hour)
	if err := f.Look(t.Context()); !errors.Is(err, unknown) {
		t.Errorf("got %v", err)
	}
	wantEvents(t, f.events.since(), "Normal Published: ")

	f.live.err, f.live.n = nil, 1
	f.keys.policy.Period = f.keys.policy.Lead
	for f.events.since(); ; f.clock.Step(time.Hour) {
		err := f.Look(t.Context())
		if errors.Is(err, rotation.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		f.events.since()
	}
	wantEvents(t, f.events.since(), "Warning NotRotated: the key is due, and has no successor: 64 keys have live tokens")

	f.keys.err = errors.New("etcd is away")
	if err := f.Look(t.Context()); !errors.Is(err, f.keys.err) {
		t.Errorf("got %v", err)
	}
	wantEvents(t, f.events.since())
}

// TestRun checks that the controller looks at once and then with each tick, and goes on after an error.
func TestRun(t *testing.T) {
	t.Parallel()
	f := newFixture()
	f.keys.err = errors.New("etcd is away")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); f.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); f.keys.called() < 5; {
		if time.Now().After(deadline) {
			t.Fatalf("%d looks", f.keys.called())
		}
		if f.clock.HasWaiters() {
			f.clock.Step(longestPause)
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ended
}

// TestPause checks how often the keys are looked at.
func TestPause(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ period, lead, linger, want time.Duration }{
		{24 * time.Hour, time.Hour, 10 * time.Minute, time.Minute},
		{0, time.Hour, 10 * time.Minute, time.Minute},
		{time.Second, 200 * time.Millisecond, time.Minute, 20 * time.Millisecond},
		{time.Millisecond, 0, 0, shortestPause},
	} {
		c := New(Config{Keys: &memory{policy: rotation.Policy{Period: tt.period, Lead: tt.lead, Linger: tt.linger}}})
		if got := c.pause(); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
