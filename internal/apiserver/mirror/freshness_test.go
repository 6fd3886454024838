package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/registry/storagetest"
)

// TestFresh checks that a feed is fresh only after a proof. Events of a watch that lags are no proof.
func TestFresh(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakePassiveClock(time.Now())
	f := feedTo()
	f.setClock(clock)
	stale := func(when string, want bool) {
		t.Helper()
		if err := f.Fresh(); errors.Is(err, ErrStale) != want {
			t.Errorf("%s: %v, want stale=%v", when, err, want)
		}
	}
	stale("before anything was read", true)
	f.advanceWatch(10)
	if !f.setCheckpoint(checkpoint{f.now(), 10}) {
		t.Error("a checkpoint at the current revision is not reached")
	}
	stale("up to date", false)

	f.setCheckpoint(checkpoint{f.now(), 20})
	clock.SetTime(clock.Now().Add(MaxLag))
	if f.setCheckpoint(checkpoint{f.now(), 30}) {
		t.Error("a checkpoint is reached before the watch is there")
	}
	stale("just young enough", false)
	clock.SetTime(clock.Now().Add(time.Second))
	change{revision: 19, name: "a"}.deliver(t, f)
	stale("a watch that delivers old events", true)
	change{revision: 20, name: "a"}.deliver(t, f)
	stale("at a checkpoint of long ago", true)
	f.setCheckpoint(checkpoint{f.now(), 30})
	change{revision: 31, name: "a"}.deliver(t, f)
	stale("beyond a checkpoint of now", false)
}

func (c change) deliver(t *testing.T, f *Feed) {
	t.Helper()
	if err := f.receive(c.event()); err != nil {
		t.Error(err)
	}
}

// TestIdleReplicaStaysFresh checks a feed of an etcd without writes, and of one where only another resource is written.
func TestIdleReplicaStaysFresh(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	clock := clocktesting.NewFakePassiveClock(time.Now())
	attempts := make(chan struct{})
	_, feed, _ := start(t, base, false, func(f *Feed) {
		f.setClock(clock)
		f.raw = &observedStorage{Interface: f.raw, attempts: attempts}
	})
	clock.SetTime(clock.Now().Add(MaxLag + time.Second))
	if err := feed.Fresh(); !errors.Is(err, ErrStale) {
		t.Errorf("long after the last proof: %v, want %v", err, ErrStale)
	}
	await := func(n int) {
		for range n {
			select {
			case <-attempts:
			case <-time.After(20 * time.Second):
				t.Fatal("the feed makes no more attempts at a proof")
			}
		}
	}
	await(3) // one may have been under way, and the second is complete when the third begins
	if err := feed.Fresh(); err != nil {
		t.Errorf("storage without writes: %v", err)
	}

	others := base.Store(base, corev1.Resource("configmaps"))
	t.Cleanup(others.Destroy)
	_, err := others.Create(storagetest.In(t, "ns"), &corev1.ConfigMap{ObjectMeta: storagetest.Meta("ns", "c")},
		rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	clock.SetTime(clock.Now().Add(MaxLag + time.Second))
	await(3)
	if err := feed.Fresh(); err != nil {
		t.Errorf("storage where another resource was written: %v", err)
	}
}

// steppedClock is a wall clock that a test sets, with a monotonic clock that is never set. Like the real clock, Since uses the
// monotonic clock for times that were taken before the first step.
type steppedClock struct {
	began         time.Time
	passed, steps time.Duration
}

func (c *steppedClock) Now() time.Time { return c.began.Add(c.passed + c.steps) }

func (c *steppedClock) Since(t time.Time) time.Duration { return c.began.Add(c.passed).Sub(t) }

// TestProofsAgeByTheMonotonicClock sets the wall clock before and after a proof.
func TestProofsAgeByTheMonotonicClock(t *testing.T) {
	t.Parallel()
	const step = 10 * time.Minute
	for _, test := range []struct {
		name           string
		atProof, after time.Duration // steps of the clock
	}{
		{"no step", 0, 0}, {"back after the proof", 0, -step}, {"ahead after the proof", 0, step},
		{"ahead during the proof, then corrected", step, -step}, {"back during the proof, then corrected", -step, step},
	} {
		clock := &steppedClock{began: time.Now()}
		f := feedTo()
		f.setClock(clock)
		clock.steps += test.atProof
		f.advanceWatch(10)
		f.setCheckpoint(checkpoint{f.now(), 10})
		clock.steps += test.after
		clock.passed += MaxLag
		if err := f.Fresh(); err != nil {
			t.Errorf("%s: %v after the proof: %v", test.name, MaxLag, err)
		}
		clock.passed += time.Millisecond
		if err := f.Fresh(); !errors.Is(err, ErrStale) {
			t.Errorf("%s: more than %v after the proof: %v, want %v", test.name, MaxLag, err, ErrStale)
		}
	}
}

// faultyStorage is storage that fails in parts. noEvents drops the events of watches that are opened, noRevision keeps
// GetCurrentResourceVersion waiting until its context ends, and noProgress makes RequestWatchProgress fail.
type faultyStorage struct {
	storage.Interface
	mu                               sync.Mutex
	noEvents, noRevision, noProgress bool
	opened                           chan context.Context // receives the context of each watch
}

func (s *faultyStorage) set(noEvents, noRevision, noProgress bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noEvents, s.noRevision, s.noProgress = noEvents, noRevision, noProgress
}

func (s *faultyStorage) state() (noEvents, noRevision, noProgress bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noEvents, s.noRevision, s.noProgress
}

func (s *faultyStorage) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	w, err := s.Interface.Watch(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	noEvents, _, _ := s.state()
	s.opened <- ctx
	if !noEvents {
		return w, nil
	}
	return watch.Filter(w, func(watch.Event) (watch.Event, bool) { return watch.Event{}, false }), nil
}

func (s *faultyStorage) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	if _, noRevision, _ := s.state(); noRevision {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return s.Interface.GetCurrentResourceVersion(ctx)
}

var errNoProgress = errors.New("no stream")

func (s *faultyStorage) RequestWatchProgress(ctx context.Context) error {
	if _, _, noProgress := s.state(); noProgress {
		return errNoProgress
	}
	return s.Interface.RequestWatchProgress(ctx)
}

// TestASilentWatchIsReplaced makes the watch of a feed hang, and then its requests for the current revision.
func TestASilentWatchIsReplaced(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	quick := timing{interval: 20 * time.Millisecond, timeout: 100 * time.Millisecond, reopen: 300 * time.Millisecond}
	s := &faultyStorage{opened: make(chan context.Context, 100)}
	var feed *Feed
	_, feed, listener := start(t, base, false, func(f *Feed) {
		s.Interface, s.noEvents, f.raw, f.timing = f.raw, true, s, quick
	})
	other := accountStore(t, base, base)
	create(t, other, "unheard")
	reopened := func() (context.Context, metadata.MD) {
		select {
		case ctx := <-s.opened:
			stream, _ := metadata.FromOutgoingContext(ctx)
			return ctx, stream
		case <-time.After(20 * time.Second):
			t.Fatal("a watch without proofs is not replaced")
			return nil, nil
		}
	}
	hung, first := reopened()
	_, second := reopened()
	if fmt.Sprint(first) == fmt.Sprint(second) {
		t.Errorf("the new watch uses the stream that hangs: %v", second)
	}
	if cause := context.Cause(hung); cause == nil || !strings.Contains(cause.Error(), "no proof of progress for") {
		t.Errorf("the first watch ended with %v", cause)
	}
	listener.await(t, "unheard", true)

	s.set(false, true, false)
	proved := feed.provedAt.Load()
	for tries, current := 0, hung; ; tries++ {
		next, _ := reopened()
		if errors.Is(context.Cause(current), context.DeadlineExceeded) {
			break
		}
		if tries == 8 {
			t.Fatalf("no watch ended because the storage did not answer, the last with %v", context.Cause(current))
		}
		current = next
	}
	if feed.provedAt.Load() <= proved {
		t.Error("a list that is read again is no proof")
	}
	s.set(false, false, false)
	create(t, other, "heard")
	listener.await(t, "heard", true)
}

// TestRequestProof checks that only an attempt that succeeds is a proof.
func TestRequestProof(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	f := feedTo()
	_, running, _ := start(t, base, true, nil)
	s := &faultyStorage{Interface: running.raw}
	f.raw, f.timing.timeout = s, 50*time.Millisecond
	for _, test := range []struct {
		name                   string
		noRevision, noProgress bool
		watchRevision          uint64
		want                   error
		fresh                  bool
	}{
		// The request for progress would fail too: if the first error were ignored, the result would be errNoProgress.
		{"storage does not answer", true, true, 1 << 60, context.DeadlineExceeded, false},
		{"the watch takes no request", false, true, 0, errNoProgress, false},
		{"the watch is not there yet", false, false, 0, nil, false},
		{"the watch is there", false, true, 1 << 60, nil, true},
	} {
		f.pending, f.watchRevision = checkpoint{}, test.watchRevision
		s.set(false, test.noRevision, test.noProgress)
		if err := f.requestProof(t.Context()); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if err := f.Fresh(); (err == nil) != test.fresh {
			t.Errorf("%s: %v, want fresh=%v", test.name, err, test.fresh)
		}
	}
}

// observedStorage reports each request for the current revision.
type observedStorage struct {
	storage.Interface
	attempts chan<- struct{}
}

func (o *observedStorage) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	select {
	case o.attempts <- struct{}{}:
	case <-ctx.Done():
	}
	return o.Interface.GetCurrentResourceVersion(ctx)
}

// TestSilenceEndsAWatch checks that a watch is given up when it has brought no proof for too long, and not before.
func TestSilenceEndsAWatch(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	for _, tt := range []struct {
		name   string
		answer error         // of the storage to each attempt
		excess time.Duration // how much longer than allowed the watch has been silent
		ends   bool
	}{
		{"proofs", nil, time.Hour, false}, {"just long enough", away, 0, false}, {"too long", away, 1, true},
	} {
		f := feedTo()
		f.setClock(clocktesting.NewFakePassiveClock(time.Now()))
		f.timing.interval, f.watchRevision = time.Millisecond, 10
		ctx, cancel := context.WithCancel(t.Context())
		attempts := 0
		f.raw = &scriptedStorage{currentRevision: func() (uint64, error) {
			if attempts++; attempts == 3 {
				cancel()
			}
			return 5, tt.answer
		}}
		err := f.proveFreshness(ctx, f.now()-f.timing.reopen-tt.excess)
		cancel()
		if (err != nil) != tt.ends || tt.ends && !errors.Is(err, away) || !tt.ends && attempts != 3 {
			t.Errorf("%s: %v after %d attempts, want an error %v", tt.name, err, attempts, tt.ends)
		}
	}
}

// TestFreshOfAMirror checks that feeds need a proof of freshness only if other processes write.
func TestFreshOfAMirror(t *testing.T) {
	t.Parallel()
	for soleWriter, want := range map[bool]error{true: nil, false: ErrStale} {
		if err := New(Config{SoleWriter: soleWriter}, accounts).Fresh(); !errors.Is(err, want) {
			t.Errorf("before anything was read, sole writer %v: %v, want %v", soleWriter, err, want)
		}
	}
}
