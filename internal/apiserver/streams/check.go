package streams

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/outage"
)

const (
	// minPause is the shortest pause between two checks, and maxPause the longest. Between them, the pause is pauseFactor times
	// as long as the check took.
	minPause, maxPause, pauseFactor = 50 * time.Millisecond, 400 * time.Millisecond, 19

	// askTimeout bounds one check that asks storage, and maxAsking is how many of them there may be at a time.
	askTimeout, maxAsking = 5 * time.Second, 64

	// linesPerSecond is how many log lines are written per second, after the first linesBurst. maxDetail bounds the detail in a
	// line, which may contain text that a caller chose.
	linesPerSecond, linesBurst = 5, 50
	maxDetail                  = 512
)

// remembered is the context of checks that must answer from memory.
var remembered = func() context.Context {
	ctx, end := context.WithCancel(context.Background())
	end()
	return ctx
}()

// Run checks the streams until ctx ends.
func (r *Registry) Run(ctx context.Context) {
	for {
		second := r.Clock.NewTimer(untilNextSecond(r.Clock.Now()))
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-second.C():
		}
		second.Stop()
		if ctx.Err() != nil {
			return
		}
		began := r.Clock.Now()
		r.checkAll(ctx)
		pause := r.Clock.NewTimer(min(max(pauseFactor*r.Clock.Since(began), minPause), maxPause))
		select {
		case <-ctx.Done():
		case <-pause.C():
		}
		pause.Stop()
	}
}

func untilNextSecond(now time.Time) time.Duration {
	return time.Second - time.Duration(now.Nanosecond())
}

// checkAll checks every group. It asks memory about each one first. A group that is not accepted by memory is checked in a
// goroutine of its own, because that check may ask storage and wait.
func (r *Registry) checkAll(ctx context.Context) {
	for _, g := range r.pending() {
		err := g.check(remembered)
		if err == nil || g.memoryOnly {
			r.settle(g, err)
			continue
		}
		r.mu.Lock()
		g.asking = true
		r.mu.Unlock()
		go r.ask(ctx, g)
	}
}

// pending returns the groups, without those of which a check is under way.
func (r *Registry) pending() []*group {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*group, 0, len(r.groups))
	for _, g := range r.groups {
		if !g.asking {
			all = append(all, g)
		}
	}
	return all
}

// ask checks a group with the time that an answer from storage takes. A group that must wait for longer than that is undecided, so that
// its streams end in time.
func (r *Registry) ask(ctx context.Context, g *group) {
	err := errBusy
	wait := r.Clock.NewTimer(askTimeout)
	defer wait.Stop()
	select {
	case r.asking <- struct{}{}:
		defer func() { <-r.asking }()
		limited, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		err = g.check(limited)
	case <-wait.C():
	case <-ctx.Done():
	}
	if ctx.Err() == nil {
		r.settle(g, err)
	}
}

var errBusy = outage.New(fmt.Errorf("%d other checks wait for storage", maxAsking))

// settle applies the result of a check.
func (r *Registry) settle(g *group, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.asking = false
	now, why := r.Clock.Now(), g.id.reason
	switch {
	case err == nil:
		g.accepted = now
		return
	case outage.Of(err) != nil:
		if !errors.Is(err, mirror.ErrStale) && now.Sub(g.accepted) < r.MaxLag {
			return
		}
		why = Undecided
	}
	// A stream that joins from now on gets a new group, because it was accepted by itself.
	if r.groups[g.id] == g {
		delete(r.groups, g.id)
	}
	n := 0
	for s := range g.streams {
		if s.finish(why) {
			n++
		}
	}
	if n > 0 {
		r.Ended(why, n)
		r.log(g, why, n, err)
	}
}

// log writes a line about the streams of a group that were ended, unless there were too many lines lately.
func (r *Registry) log(g *group, why Reason, n int, err error) {
	if !r.lines.AllowN(r.Clock.Now(), 1) {
		r.unlogged.Add(1)
		return
	}
	detail := err.Error()
	klog.InfoS("Ended the open watches and sessions of a caller", "reason", why, "user", g.user, "count", n,
		"detail", detail[:min(len(detail), maxDetail)], "unlogged", r.unlogged.Swap(0))
}
