package tokenvolume

import (
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Run renews tokens until ctx ends, and returns when no request is under way any more.
func (t *Tokens) Run(ctx context.Context) {
	var renewals sync.WaitGroup
	defer renewals.Wait()
	if t.config.Review != nil {
		renewals.Go(func() { t.reviewAll(ctx) })
	}
	for {
		h, wait := t.due()
		if h == nil {
			if !t.pause(ctx, wait, t.wake) {
				return
			}
			continue
		}
		select {
		case t.slots <- struct{}{}:
		case <-ctx.Done():
			<-h.busy
			return
		}
		renewals.Go(func() {
			defer func() { <-t.slots; <-h.busy }()
			t.renew(ctx, h)
		})
		if !t.pause(ctx, t.pauseAfter(h), nil) {
			return
		}
	}
}

// pauseAfter returns the time until the next renewal may start. Pods with a refused token are locked out, so that they wait
// less.
func (t *Tokens) pauseAfter(h *held) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.refused {
		return urgentSpacing
	}
	return spacing
}

// due returns the token that has waited longest to be renewed and marks it busy, or else how long none will be due.
func (t *Tokens) due() (*held, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for {
		first := t.earliest()
		if first == nil {
			return nil, longestPause
		}
		if wait := first.next.Sub(now); wait > 0 {
			return nil, min(wait, longestPause)
		}
		select {
		case first.busy <- struct{}{}:
			return first, 0
		default:
			// It is being requested, which sets the time anew.
			first.next = now.Add(firstRetry)
		}
	}
}

// earliest returns the token that is to be requested next. A node has hundreds of them and renews one every few
// seconds, so looking at each costs less than keeping an order would.
func (t *Tokens) earliest() *held {
	var first *held
	for _, h := range t.held {
		if h.over || h.next.IsZero() {
			continue
		}
		if first == nil || h.next.Before(first.next) {
			first = h
		}
	}
	return first
}

func (t *Tokens) pause(ctx context.Context, wait time.Duration, wake <-chan struct{}) bool {
	timer := t.config.Clock.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
	case <-wake:
	}
	return true
}

func (t *Tokens) renew(ctx context.Context, h *held) {
	err := t.request(ctx, h, "renewal")
	switch {
	case err == nil:
		t.metrics.renewed(nil)
		if t.config.Renewed != nil {
			t.config.Renewed(h.pod)
		}
	case ctx.Err() == nil:
		t.metrics.renewed(err)
		t.report(h, err)
	}
}

// untilExpiry returns how long all tokens hold, or false if there are none.
func (t *Tokens) untilExpiry() (left time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.held {
		if h.text == "" || h.over {
			continue
		}
		if own := h.expires.Sub(t.now()); !ok || own < left {
			left, ok = own, true
		}
	}
	return left, ok
}

const (
	// maxAge is when a token is renewed at the latest, however long it lives.
	maxAge = 24 * time.Hour
	// spread is the part of the time until then by which the renewal may come earlier. Tokens that were issued in the same
	// second are renewed over a quarter of it, and further apart each time.
	spread = 0.25
)

// RenewAt returns when a token is to be renewed: at 80 % of its life or 24 h after it was issued, whichever is first, or up
// to a quarter of that earlier. jitter, from 0 to 1, says how much earlier.
func RenewAt(issued, expires time.Time, jitter float64) time.Time {
	age := max(0, min(expires.Sub(issued)/5*4, maxAge))
	early := time.Duration(float64(age) * spread * min(max(jitter, 0), 1))
	return issued.Add(age - early)
}

// Timeline tells how old tokens are. It begins as the wall clock and never goes back: between two readings as much time
// passes as went by on the monotonic clock, which stands still while a machine sleeps, or on the wall clock, which may be
// set, whichever is more. So a token is renewed early where the two differ, and never late.
type Timeline struct {
	clock clock.PassiveClock

	mu      sync.Mutex
	read    time.Time // the clock at the last reading
	reading time.Time
}

// NewTimeline returns a timeline that follows a clock.
func NewTimeline(c clock.PassiveClock) *Timeline {
	now := c.Now()
	return &Timeline{clock: c, read: now, reading: now.Round(0)}
}

// Now is the present. It is safe for concurrent use.
func (l *Timeline) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	passed := max(0, l.clock.Since(l.read), now.Round(0).Sub(l.read.Round(0)))
	l.read, l.reading = now, l.reading.Add(passed)
	return l.reading
}
