package tokenvolume

import (
	"testing"
	"time"
)

func TestRenewAt(t *testing.T) {
	t.Parallel()
	issued := time.Date(2026, 11, 5, 10, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		lifetime time.Duration
		jitter   float64
		want     time.Duration
	}{
		{time.Hour, 0, 48 * time.Minute},
		{time.Hour, 1, 36 * time.Minute},
		{time.Hour, 0.5, 42 * time.Minute},
		{time.Hour, -3, 48 * time.Minute},
		{time.Hour, 7, 36 * time.Minute},
		{10 * time.Minute, 0, 8 * time.Minute},
		{30 * time.Hour, 0, 24 * time.Hour},
		{365 * 24 * time.Hour, 0, 24 * time.Hour},
		{365 * 24 * time.Hour, 1, 18 * time.Hour},
		{1 << 62, 0, 24 * time.Hour},
		{0, 1, 0},
		{-time.Hour, 1, 0},
	} {
		if got := RenewAt(issued, issued.Add(test.lifetime), test.jitter).Sub(issued); got != test.want {
			t.Errorf("a life of %v with jitter %v: renewed after %v, want %v", test.lifetime, test.jitter, got, test.want)
		}
	}
}

// twoClocks is a wall clock that a test sets, and a monotonic clock that stops while a machine sleeps. As with the real clock,
// Since measures with the monotonic clock. noted holds the times that Now has returned.
type twoClocks struct {
	wall      time.Time
	monotonic time.Duration
	noted     map[time.Time]time.Duration
}

func (c *twoClocks) Now() time.Time {
	c.noted[c.wall] = c.monotonic
	return c.wall
}

func (c *twoClocks) Since(t time.Time) time.Duration { return c.monotonic - c.noted[t] }

func TestTimeline(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	c := &twoClocks{wall: began, noted: map[time.Time]time.Duration{}}
	l := NewTimeline(c)
	want := began
	for _, step := range []struct {
		name                    string
		wall, monotonic, passes time.Duration
	}{
		{"time passes", time.Minute, time.Minute, time.Minute},
		{"the machine sleeps", time.Hour, time.Second, time.Hour},
		{"the clock is set back", -time.Hour, time.Minute, time.Minute},
		{"time passes after that", time.Minute, time.Minute, time.Minute},
		{"the clock is set ahead", time.Hour, time.Minute, time.Hour},
		{"and corrected", -time.Hour, time.Minute, time.Minute},
		{"nothing passes", 0, 0, 0},
		{"it is read just after a step back", -time.Hour, 0, 0},
	} {
		c.wall, c.monotonic = c.wall.Add(step.wall), c.monotonic+step.monotonic
		want = want.Add(step.passes)
		if got := l.Now(); !got.Equal(want) {
			t.Errorf("%s: %v, want %v", step.name, got, want)
		}
	}
}
