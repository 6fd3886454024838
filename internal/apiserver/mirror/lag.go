package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
)

const (
	// MaxLag is how long a feed may be without proof that it is up to date before Fresh refuses; only replicas need any.
	MaxLag = 10 * time.Second

	measureEvery = time.Second
)

// ErrStale says that a feed has not been known to be up to date within MaxLag.
var ErrStale = errors.New("storage watch has not progressed in time")

// goal is the revision that storage was at, at an instant. A feed that has told everything up to the revision has told
// all that was written before the instant.
type goal struct {
	at       time.Time
	revision uint64
}

// Fresh returns ErrStale when other replicas may have written more than MaxLag ago what this feed has not told yet.
func (f *Feed) Fresh() error {
	if f.alone {
		return nil
	}
	if lag := f.clock.Now().Sub(time.Unix(0, f.progress.Load())); lag > MaxLag {
		return fmt.Errorf("%s: %w", f.resource, ErrStale)
	}
	return nil
}

// measureLag proves, again and again, how far the watch is. That the watch is alive proves nothing: it may be busy with
// old events. Nor does etcd answer for a watch that began at the revision it is still at, so both are asked.
func (f *Feed) measureLag(ctx context.Context) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := f.measure(ctx); err != nil && ctx.Err() == nil {
			klog.V(2).InfoS("Could not ask the storage for watch progress", "resource", f.resource, "err", err)
		}
	}, measureEvery)
}

func (f *Feed) measure(ctx context.Context) error {
	at := f.clock.Now()
	revision, err := f.raw.GetCurrentResourceVersion(ctx)
	if err != nil || f.aim(goal{at, revision}) {
		return err
	}
	return f.raw.RequestWatchProgress(ctx)
}

// aim sets the next goal and reports whether it is reached. One not reached yet stays instead: under a steady stream of
// writes a goal that moved on would always be ahead.
func (f *Feed) aim(next goal) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.goal.at.IsZero() {
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
	if f.goal.at.IsZero() || f.watched < f.goal.revision {
		return false
	}
	f.prove(f.goal.at)
	f.goal = goal{}
	return true
}

// prove notes that all that was written before at has been told.
func (f *Feed) prove(at time.Time) {
	f.progress.Store(max(f.progress.Load(), at.UnixNano()))
}
