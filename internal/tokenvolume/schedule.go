package tokenvolume

import (
	"context"
	"sync"
	"time"
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
