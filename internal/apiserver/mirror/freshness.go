package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// MaxLag is how old the latest proof of freshness may be before Fresh fails. Only feeds of several replicas need proofs.
const MaxLag = 10 * time.Second

// ErrStale means that a feed has had no proof of freshness for MaxLag.
var ErrStale = errors.New("storage watch has not progressed in time")

// timing is how often a feed tries to prove that it is fresh, and when it gives up a watch.
type timing struct {
	// interval is the pause between two attempts, and timeout what one attempt may take.
	interval, timeout time.Duration
	// reopen is how long a watch may be open without a proof before the feed opens another. This and the time of a list
	// must fit into MaxLag, so that the failure of one connection does not make a feed stale.
	reopen time.Duration
	// catchUp is how long CatchUp may take. While it waits, it asks etcd at every progress how far the watch is: etcd does not
	// answer while the watch lags.
	catchUp, progress time.Duration
}

var defaultTiming = timing{interval: time.Second, timeout: 2 * time.Second, reopen: 3 * time.Second, catchUp: 3 * time.Second, progress: 100 * time.Millisecond}

// checkpoint is the revision of the storage at an instant of Feed.now. A feed that has delivered everything up to the
// revision has delivered everything that was written before the instant.
type checkpoint struct {
	at       time.Duration
	revision uint64
}

// setClock makes the feed measure time by c. Instants are durations since an epoch and not times of day, because the wall
// clock may be set, and that must not make a proof younger.
func (f *Feed) setClock(c clock.PassiveClock) {
	f.clock, f.epoch = c, c.Now().Add(-time.Hour)
}

// now returns the time since the epoch by the monotonic clock. It is an hour at least, so 0 can mean that there was no
// proof yet.
func (f *Feed) now() time.Duration { return f.clock.Since(f.epoch) }

// ProofAge returns the age of the latest proof: everything that was written before then has been delivered.
func (f *Feed) ProofAge() time.Duration { return f.now() - time.Duration(f.provedAt.Load()) }

// Fresh returns ErrStale if other replicas may have written something more than MaxLag ago that this feed has not
// delivered yet.
func (f *Feed) Fresh() error {
	if !f.soleWriter && f.ProofAge() > f.maxLag {
		return fmt.Errorf("%s: %w", f.resource, ErrStale)
	}
	return nil
}

// proveFreshness makes proofs of freshness at regular intervals until ctx ends; then it returns nil. If the watch, which was
// opened at the given instant, brings no proof in time, it returns an error, joined with the error of the last attempt.
func (f *Feed) proveFreshness(ctx context.Context, opened time.Duration) error {
	pause := time.NewTicker(f.timing.interval)
	defer pause.Stop()
	for {
		err := f.requestProof(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			klog.V(2).InfoS("Could not request watch progress from the storage", "resource", f.resource, "err", err)
		}
		if silence := min(f.ProofAge(), f.now()-opened); silence > f.timing.reopen {
			return errors.Join(fmt.Errorf("no proof of progress for %v", silence.Round(time.Millisecond)), err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

// requestProof sets a checkpoint at the current revision of the storage. If the watch has not reached that revision, it asks etcd
// to send a bookmark. It does both, because etcd sends no bookmark to a watch that began at the current revision.
func (f *Feed) requestProof(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.timing.timeout)
	defer cancel()
	at := f.now()
	revision, err := f.raw.GetCurrentResourceVersion(ctx)
	if err != nil {
		return err
	}
	if f.setCheckpoint(checkpoint{at, revision}) {
		return nil
	}
	return f.raw.RequestWatchProgress(ctx)
}

// setCheckpoint makes next the pending checkpoint and reports whether the watch has reached it. A checkpoint that is
// pending already stays instead: with a steady stream of writes, one that moved on would never be reached.
func (f *Feed) setCheckpoint(next checkpoint) (reached bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pending.revision == 0 {
		f.pending = next
	}
	return f.resolveCheckpoint()
}

// resolveCheckpoint turns the pending checkpoint into a proof if the watch has reached it, and reports whether it has. mu
// must be held.
func (f *Feed) resolveCheckpoint() (reached bool) {
	if f.pending.revision == 0 || f.watchRevision < f.pending.revision {
		return false
	}
	f.recordProof(f.pending.at)
	f.pending = checkpoint{}
	return true
}

// recordProof records that everything written before an instant of now has been delivered. mu must be held.
func (f *Feed) recordProof(at time.Duration) {
	f.provedAt.Store(max(f.provedAt.Load(), int64(at)))
}
