package tokenvolume

import (
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Run renews tokens until ctx ends. It returns when all requests have ended.
func (t *Tokens) Run(ctx context.Context) {
	var renewals sync.WaitGroup
	defer renewals.Wait()
	if t.config.Review != nil {
		renewals.Go(func() { t.reviewAll(ctx) })
	}
	for {
		h, wait := t.nextDue()
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
		pause := t.pauseAfter(h) // before the renewal, which may replace the refused token at once
		renewals.Go(func() {
			defer func() { <-t.slots; <-h.busy }()
			t.renew(ctx, h)
		})
		if !t.pause(ctx, pause, nil) {
			return
		}
	}
}

// pauseAfter returns the time from the start of this renewal until the next one may start. It is shorter for the renewal of a
// refused token, because the pod cannot use the API until it has a new one.
func (t *Tokens) pauseAfter(h *managed) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.refused {
		return urgentSpacing
	}
	return spacing
}

// nextDue returns the token that is longest overdue for renewal and marks it busy. If no token is due, it returns nil and how
// long none will be.
func (t *Tokens) nextDue() (*managed, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for {
		first := t.earliest()
		if first == nil {
			return nil, maxPause
		}
		if wait := first.next.Sub(now); wait > 0 {
			return nil, min(wait, maxPause)
		}
		select {
		case first.busy <- struct{}{}:
			return first, 0
		default:
			// The request that is under way sets the time again.
			first.next = now.Add(firstRetry)
		}
	}
}

// earliest returns the token that is to be requested next. A node has hundreds of tokens and renews one every few seconds, so
// a scan of all costs less than keeping them in order. t.mu is held.
func (t *Tokens) earliest() *managed {
	var first *managed
	for _, h := range t.managed {
		if h.podGone || h.next.IsZero() {
			continue
		}
		if first == nil || h.next.Before(first.next) {
			first = h
		}
	}
	return first
}

// pause waits until the time has passed or wake receives a value. It returns false if ctx ends first.
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

func (t *Tokens) renew(ctx context.Context, h *managed) {
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

// untilExpiry returns the time until the first token expires. ok is false if there is no token.
func (t *Tokens) untilExpiry() (left time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.managed {
		if h.text == "" || h.podGone {
			continue
		}
		if own := h.expires.Sub(t.now()); !ok || own < left {
			left, ok = own, true
		}
	}
	return left, ok
}

const (
	// maxAge is the age at which a token is renewed at the latest, however long it is valid.
	maxAge = 24 * time.Hour
	// renewalJitter is the part of a token's age at renewal by which the renewal may come earlier. Renewals of tokens that
	// were issued at the same time are spread over this part, and further with each renewal.
	renewalJitter = 0.25
)

// RenewAt returns when to renew a token: after 80 % of its lifetime or 24 hours, whichever comes first, and earlier by up to
// a quarter of that time. jitter, from 0 to 1, is the part of this quarter.
func RenewAt(issued, expires time.Time, jitter float64) time.Time {
	age := max(0, min(expires.Sub(issued)/5*4, maxAge))
	early := time.Duration(float64(age) * renewalJitter * min(max(jitter, 0), 1))
	return issued.Add(age - early)
}

// Timeline is the time by which tokens are renewed. It begins as the wall clock and never goes back. Between two readings it
// advances by the time that has passed on the monotonic clock, which stops while a machine sleeps, or on the wall clock, which
// may be set, whichever is longer. So if the two clocks differ, tokens are renewed early, and never late.
type Timeline struct {
	clock clock.PassiveClock

	mu      sync.Mutex
	read    time.Time // the clock's time at the last call of Now
	reading time.Time // what Now last returned
}

// NewTimeline returns a Timeline that follows a clock.
func NewTimeline(c clock.PassiveClock) *Timeline {
	now := c.Now()
	return &Timeline{clock: c, read: now, reading: now.Round(0)}
}

// Now returns the current time. It is safe for concurrent use.
func (l *Timeline) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	passed := max(0, l.clock.Since(l.read), now.Round(0).Sub(l.read.Round(0)))
	l.read, l.reading = now, l.reading.Add(passed)
	return l.reading
}
