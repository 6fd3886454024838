package pod

import (
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/node/cri"
)

// plan is the next step for a pod.
type plan struct {
	stop []stop
	// sandbox, where not nil, is the attempt number of the sandbox to run. No container is started before it runs.
	sandbox          *uint32
	start            []start
	stopSandboxes    []string // IDs
	removeContainers []string // IDs
	removeSandboxes  []string // IDs
	// failure, where not nil, is the reason why the pod must not run any longer.
	failure *failure
	// podEnded is set if all containers of the pod have ended for good. They are kept, and the pod's volumes are torn down.
	podEnded bool
	// wake is when to decide again even if nothing has changed. Zero means never.
	wake time.Time
}

// stop is a container to stop.
type stop struct {
	id, name string
	grace    time.Duration
	message  string
}

// start is a container to create and start.
type start struct {
	container *corev1.Container
	attempt   uint32
	ended     time.Time // the end of the earlier run, zero if there was none
	isRestart bool      // there was an earlier run
}

// deadlineExceeded is the failure of a pod that was active for longer than its activeDeadlineSeconds.
var deadlineExceeded = failure{"DeadlineExceeded", "Pod was active on the node longer than the specified deadline"}

// decide returns the next step. It reads nothing but the situation, and does not change its memory.
func decide(s *situation) plan {
	var p plan
	if s.ending {
		p.stop = s.stopsInOrder(s.grace())
		return p
	}
	s.enforceDeadline(&p)
	if s.outcome() != "" {
		p.stop = s.stopsInOrder(s.grace())
		p.podEnded = len(p.stop) == 0
	} else {
		s.planRun(&p)
	}
	s.planCleanUp(&p)
	return p
}

// enforceDeadline fails a pod that has been active for too long.
func (s *situation) enforceDeadline(p *plan) {
	at, ok := s.deadline()
	if !ok || s.outcome() != "" {
		return
	}
	if s.now.Before(at) {
		p.wake = earliest(p.wake, at)
		return
	}
	p.failure = &deadlineExceeded
	s.failure = p.failure
}

// deadline returns the time until which the pod may be active. ok is false if there is no limit.
func (s *situation) deadline() (time.Time, bool) {
	if s.pod.Spec.ActiveDeadlineSeconds == nil || s.started.IsZero() {
		return time.Time{}, false
	}
	return s.started.Add(time.Duration(*s.pod.Spec.ActiveDeadlineSeconds) * time.Second), true
}

// planRun plans the next step of a pod that is to run.
func (s *situation) planRun(p *plan) {
	ready := s.readySandbox()
	orphans := s.orphanedStops(ready)
	p.stop = append(p.stop, orphans...)
	if ready == nil {
		if len(orphans) == 0 {
			s.planSandbox(p)
		}
		return
	}
	if !s.initialized(ready) {
		if !s.initialize(p, ready) {
			return
		}
	} else {
		s.keepSidecars(p)
	}
	for _, f := range s.mainContainers() {
		s.planStart(p, &f)
	}
}

// orphanedStops returns stops for the containers that run in a dead sandbox.
func (s *situation) orphanedStops(ready *cri.Sandbox) []stop {
	var all []stop
	for _, c := range s.running() {
		if ready == nil || c.SandboxID != ready.ID {
			all = append(all, stop{c.ID, c.Name, s.grace(), stopMessage(c.Name)})
		}
	}
	return all
}

func (s *situation) planSandbox(p *plan) {
	if s.sandbox.mustWait(s.now) {
		p.wake = earliest(p.wake, s.sandbox.until)
		return
	}
	attempt := uint32(0)
	if len(s.observed.Sandboxes) > 0 {
		attempt = s.observed.Sandboxes[0].Attempt + 1
	}
	p.sandbox = &attempt
}

// initialize plans the start of the next init container. It returns true if all init containers have completed.
func (s *situation) initialize(p *plan, ready *cri.Sandbox) bool {
	for _, f := range s.initContainers() {
		done := f.succeededIn(ready)
		if f.kind == sidecar {
			done = f.maybeRunning()
		}
		if !done {
			s.planStart(p, &f)
			return false
		}
	}
	return true
}

// keepSidecars plans the restart of sidecars that have ended.
func (s *situation) keepSidecars(p *plan) {
	for _, f := range s.initContainers() {
		if f.kind == sidecar {
			s.planStart(p, &f)
		}
	}
}

// planStart plans the start of a container that is to run and is not running, once its back-off has passed.
func (s *situation) planStart(p *plan, f *containerState) {
	last := f.last()
	if f.maybeRunning() {
		if s.changed[f.container.Name] == last.ID {
			p.stop = append(p.stop, stop{last.ID, last.Name, s.grace(), "Container " + last.Name + " definition changed, will be restarted"})
		}
		return
	}
	if f.isDone() {
		return
	}
	at := f.due
	if failed := s.attempts[f.container.Name]; failed.until.After(at) {
		at = failed.until
	}
	if s.now.Before(at) {
		p.wake = earliest(p.wake, at)
		return
	}
	next := start{container: f.container}
	if last != nil {
		next.attempt, next.ended, next.isRestart = last.Attempt+1, last.FinishedAt, true
	}
	p.start = append(p.start, next)
}

// stopsInOrder returns the containers to stop next: first the ordinary ones, and when none of them runs any more, the
// sidecars one after the other, beginning with the last. If there is no grace period, it returns all containers.
func (s *situation) stopsInOrder(grace time.Duration) []stop {
	var ordinary, all []stop
	for _, c := range s.running() {
		one := stop{c.ID, c.Name, grace, stopMessage(c.Name)}
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

// lastSidecar returns the stops of the sidecar that is the last in the pod's spec.
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

func stopMessage(name string) string { return "Stopping container " + name }

// grace returns how long a container may take to end.
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

// maxGrace is about 68 years, in seconds. A longer grace period would overflow in some of the places that take it.
const maxGrace = math.MaxInt32

func inSeconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), maxGrace)) * time.Second
}

// remainingGrace returns the rest of a deleted pod's grace period, in whole seconds. The deletion timestamp is truncated to
// seconds, so a second is added to it.
func (s *situation) remainingGrace() time.Duration {
	var granted time.Duration
	if g := s.pod.DeletionGracePeriodSeconds; g != nil {
		granted = inSeconds(*g)
	}
	left := s.pod.DeletionTimestamp.Add(time.Second).Sub(s.now)
	left = (left + time.Second - 1).Truncate(time.Second)
	return max(min(left, granted), 0)
}

// keptRuns is the number of runs that are kept of each container: the newest, and the one before for `logs --previous`.
const keptRuns = 2

// planCleanUp plans the removal of old runs, of containers that were created and never started, and of sandboxes that are
// dead or whose pod has ended.
func (s *situation) planCleanUp(p *plan) {
	kept := map[string]bool{} // sandboxes with a run that is kept
	seen := map[string]int{}
	for _, c := range s.observed.Containers {
		seen[c.Name]++
		switch {
		case c.State == cri.Created:
			seen[c.Name]--
			p.removeContainers = append(p.removeContainers, c.ID)
		case seen[c.Name] > keptRuns && !maybeRunning(&c):
			p.removeContainers = append(p.removeContainers, c.ID)
		default:
			kept[c.SandboxID] = true
		}
	}
	for i, sandbox := range s.observed.Sandboxes {
		if i == 0 && sandbox.Ready && !p.podEnded || s.runsIn(sandbox.ID) {
			continue
		}
		if !s.stopped[sandbox.ID] {
			p.stopSandboxes = append(p.stopSandboxes, sandbox.ID)
		} else if !kept[sandbox.ID] {
			p.removeSandboxes = append(p.removeSandboxes, sandbox.ID)
		}
	}
}

func (s *situation) runsIn(sandboxID string) bool {
	return slices.ContainsFunc(s.running(), func(c cri.Container) bool { return c.SandboxID == sandboxID })
}
