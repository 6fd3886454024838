package mirror

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// catchUps are the callers of CatchUp. All that call while the revision of the storage is read wait for the next reading, which
// begins after their calls. So any number of callers causes one reading at a time.
type catchUps struct {
	mu      sync.Mutex
	reading bool
	next    *catchUp // for which nothing has been read yet; nil if there is none
	waiting map[*catchUp]struct{}
}

// catchUp is one reading of the storage's revision, and the wait for that revision.
type catchUp struct {
	done     chan struct{} // closed when the feed has caught up or has failed to
	err      error
	revision uint64 // 0 until it was read
	reached  chan struct{}
}

// CatchUp returns nil once the listeners have everything that was written to the storage before the call. It returns ErrStale if
// that takes longer than three seconds, and the cause of ctx's end.
func (f *Feed) CatchUp(ctx context.Context) error {
	if f.soleWriter {
		return nil
	}
	c := f.joinCatchUp()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", f.resource, context.Cause(ctx))
	}
}

// joinCatchUp returns a catchUp whose reading begins after the call.
func (f *Feed) joinCatchUp() *catchUp {
	s := &f.catchUps
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &catchUp{done: make(chan struct{}), reached: make(chan struct{})}
	}
	joined := s.next
	if !s.reading {
		s.reading = true
		go f.readRevisions()
	}
	return joined
}

// readRevisions reads the revision of the storage for one catchUp after the other, until there is no next one.
func (f *Feed) readRevisions() {
	s := &f.catchUps
	for {
		s.mu.Lock()
		c := s.next
		s.next = nil
		if c == nil {
			s.reading = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), f.timing.catchUp)
		revision, err := f.raw.GetCurrentResourceVersion(ctx)
		if err != nil {
			cancel()
			c.err = fmt.Errorf("%s: %w: %w", f.resource, ErrStale, err)
			close(c.done)
			continue
		}
		go func() {
			defer cancel()
			c.err = f.awaitRevision(ctx, c, revision)
			close(c.done)
		}()
	}
}

// awaitRevision waits until the watch has delivered everything up to a revision.
func (f *Feed) awaitRevision(ctx context.Context, c *catchUp, revision uint64) error {
	f.mu.Lock()
	reached := f.watchRevision >= revision
	if !reached {
		f.catchUps.await(c, revision)
	}
	f.mu.Unlock()
	if reached {
		return nil
	}
	defer f.catchUps.forget(c)
	again := time.NewTicker(f.timing.progress)
	defer again.Stop()
	for {
		_ = f.raw.RequestWatchProgress(f.withOwnStream(ctx)) // if it fails, the wait ends with an error
		select {
		case <-c.reached:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: the watch has not reached revision %d", f.resource, ErrStale, revision)
		case <-again.C:
		}
	}
}

func (s *catchUps) await(c *catchUp, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		s.waiting = map[*catchUp]struct{}{}
	}
	c.revision = revision
	s.waiting[c] = struct{}{}
}

func (s *catchUps) forget(c *catchUp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, c)
}

// reach ends the waits for revisions up to the given one.
func (s *catchUps) reach(revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.waiting {
		if c.revision <= revision {
			delete(s.waiting, c)
			close(c.reached)
		}
	}
}
