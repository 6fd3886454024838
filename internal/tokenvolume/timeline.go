package tokenvolume

import (
	"sync"
	"time"

	"k8s.io/utils/clock"
)

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
