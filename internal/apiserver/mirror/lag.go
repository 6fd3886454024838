package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// MaxLag is how long a feed may be without proof that it is up to date before Fresh refuses; only replicas need any.
const MaxLag = 10 * time.Second

// ErrStale says that a feed has not been known to be up to date within MaxLag.
var ErrStale = errors.New("storage watch has not progressed in time")

// pace is how often a feed measures its lag, and what it does when it learns nothing.
type pace struct {
	// every is the pause between two measurements, and timeout what one may take.
	every, timeout time.Duration
	// reopen is how long a watch may be open without proof before another takes its place. Both that and a list must fit
	// into MaxLag, so that the failure of one connection does not make a feed stale.
	reopen time.Duration
}

var usualPace = pace{every: time.Second, timeout: 2 * time.Second, reopen: 3 * time.Second}

// goal is the revision that storage was at, at an instant of Feed.now. A feed that has told everything up to the
// revision has told all that was written before the instant. There is no goal while revision is 0.
type goal struct {
	at       time.Duration
	revision uint64
}

// setClock has the feed measure time by c from now on. Instants are kept as the time since an epoch, never as times of
// day: the wall clock may be set, and a proof must not become younger by that.
func (f *Feed) setClock(c clock.PassiveClock) {
	f.clock, f.epoch = c, c.Now().Add(-time.Hour)
}

// now is the time since the epoch, by the monotonic clock. It is never near 0, the instant of a proof that was not made.
func (f *Feed) now() time.Duration { return f.clock.Since(f.epoch) }

// ProofAge is how long ago everything written by others had been told for certain.
func (f *Feed) ProofAge() time.Duration { return f.now() - time.Duration(f.progress.Load()) }

// Fresh returns ErrStale when other replicas may have written more than MaxLag ago what this feed has not told yet.
func (f *Feed) Fresh() error {
	if !f.alone && f.ProofAge() > f.maxLag {
		return fmt.Errorf("%s: %w", f.resource, ErrStale)
	}
	return nil
}

// measureLag proves, again and again, how far the watch is. That the watch is alive proves nothing: it may be busy with
// old events. Nor does etcd answer for a watch that began at the revision it is still at, so both are asked. It returns
// an error, with that of the last measurement, when the watch, open since the given instant, proves nothing in time.
func (f *Feed) measureLag(ctx context.Context, opened time.Duration) error {
	pause := time.NewTicker(f.pace.every)
	defer pause.Stop()
	for {
		err := f.measure(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			klog.V(2).InfoS("Could not ask the storage for watch progress", "resource", f.resource, "err", err)
		}
		if silence := min(f.ProofAge(), f.now()-opened); silence > f.pace.reopen {
			return errors.Join(fmt.Errorf("no proof of progress for %v", silence.Round(time.Millisecond)), err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

// measure asks where storage is, and has the watch tell when it is there too.
func (f *Feed) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.pace.timeout)
	defer cancel()
	at := f.now()
	revision, err := f.raw.GetCurrentResourceVersion(ctx)
	if err != nil {
		return err
	}
	if f.aim(goal{at, revision}) {
		return nil
	}
	return f.raw.RequestWatchProgress(ctx)
}

// aim sets the next goal and reports whether it is reached. One not reached yet stays instead: under a steady stream of
// writes a goal that moved on would always be ahead.
func (f *Feed) aim(next goal) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.goal.revision == 0 {
		f.goal = next
	}
	return f.score()
}

// arrive notes that everything up to revision has been told. The caller holds mu.
func (f *Feed) arrive(revision uint64) {
	f.watched = max(f.watched, revision)
	f.score()
}

func (f *Feed) score() bool {
	if f.goal.revision == 0 || f.watched < f.goal.revision {
		return false
	}
	f.prove(f.goal.at)
	f.goal = goal{}
	return true
}

// prove notes that all that was written before at has been told.
func (f *Feed) prove(at time.Duration) {
	f.progress.Store(max(f.progress.Load(), int64(at)))
}
