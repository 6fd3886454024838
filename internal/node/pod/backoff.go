package pod

import "time"

// Kubernetes' back-off between restarts of a container, and between pulls of an image.
const (
	firstRestart  = 10 * time.Second
	longestDelay  = 5 * time.Minute
	forgetRestart = 10 * time.Minute
)

// restart is when a container was last started anew, and how long it must stay down should it end again.
type restart struct {
	delay time.Duration
	at    time.Time
}

// due returns the time before which a container that ended may not be started again.
func (r restart) due(ended time.Time) time.Time {
	if r.forgotten(ended) {
		return time.Time{}
	}
	return ended.Add(r.delay)
}

// next returns what to remember when a container that ended is started again now.
func (r restart) next(ended, now time.Time) restart {
	if r.forgotten(ended) {
		return restart{firstRestart, now}
	}
	return restart{min(2*r.delay, longestDelay), now}
}

func (r restart) forgotten(ended time.Time) bool {
	return r.delay == 0 || ended.Sub(r.at) > forgetRestart
}

// resumed returns the back-off of a container that an earlier agent has restarted so many times, so that a new agent does
// not start a crashing container over and over faster than the old one did.
func resumed(restarts uint32, startedAt time.Time) restart {
	if restarts == 0 {
		return restart{}
	}
	delay := longestDelay
	if doublings := restarts - 1; doublings < 5 {
		delay = min(firstRestart<<doublings, longestDelay)
	}
	return restart{delay, startedAt}
}

// retry is when something that failed may be tried again.
type retry struct {
	delay time.Duration
	until time.Time
}

// pace is how the delays of a retry grow.
type pace struct{ first, longest time.Duration }

var (
	pullPace    = pace{firstRestart, longestDelay}
	mountPace   = pace{500 * time.Millisecond, 2 * time.Minute}
	runtimePace = pace{time.Second, time.Minute}
	deletePace  = pace{500 * time.Millisecond, 30 * time.Second}
)

// failed doubles the delay. The jitter, 0 to 1, adds up to a tenth, because many pods may have failed together.
func (r *retry) failed(now time.Time, p pace, jitter float64) {
	r.delay = min(max(2*r.delay, p.first), p.longest)
	r.until = now.Add(r.delay + time.Duration(jitter*float64(r.delay)/10))
}

// waits says whether it is too early to try again.
func (r *retry) waits(now time.Time) bool { return now.Before(r.until) }

// earlier returns the earlier of two times, where zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
