package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/storage"

	"lanyard.dev/internal/apiserver/registry/storagetest"
)

// countedRevisions counts how often the revision of the storage is read.
type countedRevisions struct {
	storage.Interface
	reads atomic.Int64
}

func (c *countedRevisions) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	c.reads.Add(1)
	return c.Interface.GetCurrentResourceVersion(ctx)
}

// TestCatchUp checks that a feed has what another process wrote before the call, and that many callers share readings.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	const rounds, callers = 10, 100
	base := storagetest.Start(t)
	counted := &countedRevisions{}
	_, feed, listener := start(t, base, false, func(f *Feed) {
		counted.Interface = f.raw
		f.raw = counted
		f.timing.interval = time.Hour // no proofs, which read the revision too
	})
	other := accountStore(t, base, base)
	before := counted.reads.Load()
	for round := range rounds {
		name := fmt.Sprintf("a%d", round)
		create(t, other, name)
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				if err := feed.CatchUp(t.Context()); err != nil {
					t.Error(err)
				} else if !listener.has(name) {
					t.Errorf("%s was not delivered", name)
				}
			})
		}
		all.Wait()
	}
	if reads := counted.reads.Load() - before; reads > rounds*callers/4 {
		t.Errorf("%d callers read the revision %d times", rounds*callers, reads)
	}
}

// TestCatchUpIsBounded checks a watch that makes no progress, a caller with a deadline, and a storage that does not answer.
func TestCatchUpIsBounded(t *testing.T) {
	t.Parallel()
	f := feedTo()
	away := errors.New("away")
	answer := error(nil)
	f.raw = &scriptedStorage{currentRevision: func() (uint64, error) { return 9, answer }}
	f.timing.catchUp, f.timing.progress = 50*time.Millisecond, time.Millisecond
	if err := f.CatchUp(t.Context()); !errors.Is(err, ErrStale) {
		t.Errorf("no progress: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(away)
	if err := f.CatchUp(ctx); !errors.Is(err, away) {
		t.Errorf("a caller that left: %v", err)
	}
	f.advanceWatch(9)
	if err := f.CatchUp(t.Context()); err != nil {
		t.Errorf("at the revision: %v", err)
	}
	f = feedTo()
	f.raw = &scriptedStorage{currentRevision: func() (uint64, error) { return 0, away }}
	if err := f.CatchUp(t.Context()); !errors.Is(err, ErrStale) || !errors.Is(err, away) {
		t.Errorf("no revision: %v", err)
	}
	f.soleWriter = true
	if err := f.CatchUp(t.Context()); err != nil {
		t.Errorf("the sole writer: %v", err)
	}
}
