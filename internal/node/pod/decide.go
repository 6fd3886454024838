package pod

import (
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/node/cri"
)

// plan is what is to be done for a pod now.
type plan struct {
	stop []stop
	// sandbox, where not nil, is the attempt of the sandbox to run; nothing can be started before.
	sandbox *uint32
	start   []start
	// drop are sandboxes to stop, remove containers and gone sandboxes that are of no more use.
	drop, remove, gone []string
	// failure is set when the pod may not run any longer.
	failure *failure
	// over says that the pod has ended: its containers are kept, and its volumes are not needed any more.
	over bool
	// wake is when to look again even if nothing has changed; zero means never.
	wake time.Time
}

// stop is a container to end.
type stop struct {
	id, name string
	grace    time.Duration
	message  string
}

// start is a container to make and start.
type start struct {
	container *corev1.Container
	attempt   uint32
	ended     time.Time // when the run before it ended; zero for the first
	again     bool      // there was one
}

// deadlineExceeded is the failure of a pod that was active for longer than its activeDeadlineSeconds.
var deadlineExceeded = failure{"DeadlineExceeded", "Pod was active on the node longer than the specified deadline"}

// decide returns what to do next. It does not change the situation's memory, and asks nothing and nobody.
func decide(s *situation) plan {
	var p plan
	if s.ending {
		p.stop = s.stopsInOrder(s.grace())
		return p
	}
	s.enforceDeadline(&p)
	if s.outcome() != "" {
		p.stop = s.stopsInOrder(s.grace())
		p.over = len(p.stop) == 0
	} else {
		s.advance(&p)
	}
	s.tidy(&p)
	return p
}

// enforceDeadline fails a pod that has been active for too long.
func (s *situation) enforceDeadline(p *plan) {
	at, ok := s.deadline()
	if !ok || s.outcome() != "" {
		return
	}
	if s.now.Before(at) {
		p.wake = earlier(p.wake, at)
		return
	}
	p.failure = &deadlineExceeded
	s.failure = p.failure
}

// deadline returns until when the pod may be active.
func (s *situation) deadline() (time.Time, bool) {
	if s.pod.Spec.ActiveDeadlineSeconds == nil || s.started.IsZero() {
		return time.Time{}, false
	}
	return s.started.Add(time.Duration(*s.pod.Spec.ActiveDeadlineSeconds) * time.Second), true
}

// advance takes a pod that is to run one step on.
func (s *situation) advance(p *plan) {
	live := s.live()
	strays := s.strays(live)
	p.stop = append(p.stop, strays...)
	if live == nil {
		if len(strays) == 0 {
			s.wantSandbox(p)
		}
		return
	}
	if !s.initialized(live) {
		if !s.initialize(p, live) {
			return
		}
	} else {
		s.keepSidecars(p)
	}
	for _, f := range s.regulars() {
		s.consider(p, &f)
	}
}

// strays are containers that run in a sandbox that has died.
func (s *situation) strays(live *cri.Sandbox) []stop {
	var all []stop
	for _, c := range s.running() {
		if live == nil || c.SandboxID != live.ID {
			all = append(all, stop{c.ID, c.Name, s.grace(), stopping(c.Name)})
		}
	}
	return all
}

func (s *situation) wantSandbox(p *plan) {
	if s.sandbox.waits(s.now) {
		p.wake = earlier(p.wake, s.sandbox.until)
		return
	}
	attempt := uint32(0)
	if len(s.held.Sandboxes) > 0 {
		attempt = s.held.Sandboxes[0].Attempt + 1
	}
	p.sandbox = &attempt
}

// initialize goes through the init containers in order, and says whether all have done their work.
func (s *situation) initialize(p *plan, live *cri.Sandbox) bool {
	for _, f := range s.initials() {
		done := f.succeededIn(live)
		if f.kind == sidecar {
			done = f.alive()
		}
		if !done {
			s.consider(p, &f)
			return false
		}
	}
	return true
}

// keepSidecars starts sidecars again that have ended.
func (s *situation) keepSidecars(p *plan) {
	for _, f := range s.initials() {
		if f.kind == sidecar {
			s.consider(p, &f)
		}
	}
}

// consider starts the container if it is to run, is not running, and was not started too recently.
func (s *situation) consider(p *plan, f *fate) {
	last := f.last()
	if f.alive() {
		if s.changed[f.container.Name] == last.ID {
			p.stop = append(p.stop, stop{last.ID, last.Name, s.grace(), "Container " + last.Name + " definition changed, will be restarted"})
		}
		return
	}
	if f.over() {
		return
	}
	at := f.due
	if failed := s.attempts[f.container.Name]; failed.until.After(at) {
		at = failed.until
	}
	if s.now.Before(at) {
		p.wake = earlier(p.wake, at)
		return
	}
	next := start{container: f.container}
	if last != nil {
		next.attempt, next.ended, next.again = last.Attempt+1, last.FinishedAt, true
	}
	p.start = append(p.start, next)
}

// stopsInOrder ends what runs: the sidecars one after another, the last first, once nothing else runs. Where there is no
// time left, everything ends at once.
func (s *situation) stopsInOrder(grace time.Duration) []stop {
	var ordinary, all []stop
	for _, c := range s.running() {
		one := stop{c.ID, c.Name, grace, stopping(c.Name)}
		all = append(all, one)
		if !s.isSidecar(c.Name) {
			ordinary = append(ordinary, one)
		}
	}
	if grace == 0 || len(ordinary) == len(all) {
		return all
	}
	if len(ordinary) > 0 {
		return ordinary
	}
	return s.lastSidecar(all)
}

func (s *situation) isSidecar(name string) bool {
	for i := range s.pod.Spec.InitContainers {
		if c := &s.pod.Spec.InitContainers[i]; c.Name == name {
			return initKind(c) == sidecar
		}
	}
	return false
}

// lastSidecar picks the stops of the sidecar that stands last in the pod.
func (s *situation) lastSidecar(all []stop) []stop {
	for i := len(s.pod.Spec.InitContainers) - 1; i >= 0; i-- {
		var these []stop
		for _, one := range all {
			if one.name == s.pod.Spec.InitContainers[i].Name {
				these = append(these, one)
			}
		}
		if len(these) > 0 {
			return these
		}
	}
	return all
}

func stopping(name string) string { return "Stopping container " + name }

// grace is how long a container may take to end.
func (s *situation) grace() time.Duration {
	switch {
	case s.killed:
		return 0
	case s.pod.DeletionTimestamp != nil:
		return s.remainingGrace()
	case s.pod.Spec.TerminationGracePeriodSeconds != nil:
		return inSeconds(*s.pod.Spec.TerminationGracePeriodSeconds)
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// longestGrace is some 68 years: more cannot be counted in every place that a grace comes to.
const longestGrace = math.MaxInt32

func inSeconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), longestGrace)) * time.Second
}

// remainingGrace is what is left of the time a deleted pod was given, in full seconds. The timestamp was cut to a second,
// so that up to one more may be left than it says.
func (s *situation) remainingGrace() time.Duration {
	var granted time.Duration
	if g := s.pod.DeletionGracePeriodSeconds; g != nil {
		granted = inSeconds(*g)
	}
	left := s.pod.DeletionTimestamp.Add(time.Second).Sub(s.now)
	left = (left + time.Second - 1).Truncate(time.Second)
	return max(min(left, granted), 0)
}

// keptRuns is how many runs of each container are kept: the newest, and the one before it for `logs --previous`.
const keptRuns = 2

// tidy finds what is of no more use: old runs, what was made and never started, and sandboxes that died or whose pod has
// ended.
func (s *situation) tidy(p *plan) {
	kept := map[string]bool{} // sandboxes that hold a run to keep
	seen := map[string]int{}
	for _, c := range s.held.Containers {
		seen[c.Name]++
		switch {
		case c.State == cri.Created:
			seen[c.Name]--
			p.remove = append(p.remove, c.ID)
		case seen[c.Name] > keptRuns && !alive(&c):
			p.remove = append(p.remove, c.ID)
		default:
			kept[c.SandboxID] = true
		}
	}
	for i, sandbox := range s.held.Sandboxes {
		if i == 0 && sandbox.Ready && !p.over || s.runsIn(sandbox.ID) {
			continue
		}
		if !s.stopped[sandbox.ID] {
			p.drop = append(p.drop, sandbox.ID)
		} else if !kept[sandbox.ID] {
			p.gone = append(p.gone, sandbox.ID)
		}
	}
}

func (s *situation) runsIn(sandboxID string) bool {
	return slices.ContainsFunc(s.running(), func(c cri.Container) bool { return c.SandboxID == sandboxID })
}
