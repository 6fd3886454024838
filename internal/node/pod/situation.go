package pod

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/node/cri"
)

// situation is everything that is known about a pod at one moment. The next step and the pod's status depend on nothing else.
type situation struct {
	pod      *corev1.Pod
	observed cri.Pod // the pod's sandboxes and containers in the runtime
	now      time.Time
	// started is when the pod was first seen on this node.
	started time.Time
	// ending is set if the object is being deleted. killed is set if it is gone, so that there is no grace period.
	ending, killed bool
	// failure, where not nil, is the reason why the pod must not run.
	failure *failure
	memory
}

// failure is a reason for the failure of a pod that is not the failure of one of its containers.
type failure struct{ Reason, Message string }

// memory is the part of a situation that a worker remembers. It may be lost: then the back-off of restarts is derived from
// the runtime's attempt numbers, and failed steps are tried again at once.
type memory struct {
	restarts map[string]restart // by container
	attempts map[string]retry   // by container: failures to create or start it
	sandbox  retry
	// stopped are the sandboxes that have been stopped, so that their network is released.
	stopped map[string]bool
	// changed is, by container, the ID of the run whose image differs from the image in the pod's spec.
	changed map[string]string
}

func newMemory() memory {
	return memory{restarts: map[string]restart{}, attempts: map[string]retry{}, stopped: map[string]bool{}, changed: map[string]string{}}
}

// kind is the kind of a container in a pod.
type kind int

const (
	regular kind = iota
	initial
	sidecar // an init container with the restart policy Always
)

// containerState is the state of one container of a pod.
type containerState struct {
	container *corev1.Container
	kind      kind
	runs      []cri.Container // the newest first, without those that were never started
	// mustRestart is set if the container has ended and is to be started again, not before due.
	mustRestart bool
	due         time.Time
	delay       time.Duration // the back-off that led to due
}

// last returns the newest run, or nil if there is none.
func (f *containerState) last() *cri.Container {
	if len(f.runs) == 0 {
		return nil
	}
	return &f.runs[0]
}

func (f *containerState) maybeRunning() bool { return f.last() != nil && maybeRunning(f.last()) }

// isDone reports whether the container has ended for good.
func (f *containerState) isDone() bool {
	return f.last() != nil && f.last().State == cri.Exited && !f.mustRestart
}

// succeededIn reports whether the container has succeeded in this sandbox.
func (f *containerState) succeededIn(sandbox *cri.Sandbox) bool {
	l := f.last()
	return l != nil && l.State == cri.Exited && l.ExitCode == 0 && sandbox != nil && l.SandboxID == sandbox.ID
}

// maybeRunning reports whether a run is running, or its state is unknown.
func maybeRunning(c *cri.Container) bool { return c.State == cri.Running || c.State == cri.Unknown }

// initContainers returns the states of the init containers, in the order of the spec.
func (s *situation) initContainers() []containerState {
	var all []containerState
	for i := range s.pod.Spec.InitContainers {
		c := &s.pod.Spec.InitContainers[i]
		all = append(all, s.containerState(c, initKind(c)))
	}
	return all
}

func initKind(c *corev1.Container) kind {
	if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
		return sidecar
	}
	return initial
}

// mainContainers returns the states of the ordinary containers, in the order of the spec.
func (s *situation) mainContainers() []containerState {
	var all []containerState
	for i := range s.pod.Spec.Containers {
		all = append(all, s.containerState(&s.pod.Spec.Containers[i], regular))
	}
	return all
}

func (s *situation) containerState(c *corev1.Container, k kind) containerState {
	f := containerState{container: c, kind: k, runs: runs(&s.observed, c.Name)}
	if len(f.runs) == 0 {
		f.runs = s.lostRun(c.Name)
	}
	last := f.last()
	if last == nil || last.State != cri.Exited {
		return f
	}
	f.mustRestart = s.restarts(c.Name, k, last)
	if k == initial && last.ExitCode == 0 {
		return f
	}
	if r := s.memory.restarts[c.Name]; f.mustRestart && s.changed[c.Name] != last.ID && !r.isReset(last.FinishedAt) {
		f.due, f.delay = r.due(last.FinishedAt), r.delay
	}
	return f
}

// restarts reports whether a container that has ended is to be started again.
func (s *situation) restarts(name string, k kind, last *cri.Container) bool {
	policy := s.pod.Spec.RestartPolicy
	switch {
	case s.changed[name] == last.ID, k == sidecar:
		return true
	case k == initial && last.ExitCode == 0:
		// An init container runs once in each sandbox.
		ready := s.readySandbox()
		return ready == nil || ready.ID != last.SandboxID
	case policy == corev1.RestartPolicyNever:
		return false
	case policy == corev1.RestartPolicyOnFailure:
		return last.ExitCode != 0
	}
	return true
}

// runs returns the runs of a container that were started, the newest first.
func runs(observed *cri.Pod, name string) []cri.Container {
	var all []cri.Container
	for _, c := range observed.Containers {
		if c.Name == name && c.State != cri.Created {
			all = append(all, c)
		}
	}
	return all
}

// lostRun returns the run that the pod's status mentions and the runtime no longer knows, as a list of at most one. Without
// it, a container that must run only once would run again after its container was removed from the runtime.
func (s *situation) lostRun(name string) []cri.Container {
	for _, status := range append(s.pod.Status.InitContainerStatuses, s.pod.Status.ContainerStatuses...) {
		if status.Name != name || status.ContainerID == "" {
			continue
		}
		_, id, _ := strings.Cut(status.ContainerID, "://")
		run := cri.Container{ID: id, Name: name, Attempt: uint32(max(status.RestartCount, 0)), State: cri.Exited, Image: status.Image, ImageID: status.ImageID}
		if t := status.State.Terminated; t != nil {
			run.ExitCode, run.Reason, run.Message = t.ExitCode, t.Reason, t.Message
			run.StartedAt, run.FinishedAt = t.StartedAt.Time, t.FinishedAt.Time
			return []cri.Container{run}
		}
		run.ExitCode, run.Reason = 137, "ContainerStatusUnknown"
		run.Message = "The container could not be located when the pod was terminated"
		return []cri.Container{run}
	}
	return nil
}

// readySandbox returns the sandbox in which containers can be started, or nil.
func (s *situation) readySandbox() *cri.Sandbox {
	if len(s.observed.Sandboxes) > 0 && s.observed.Sandboxes[0].Ready {
		return &s.observed.Sandboxes[0]
	}
	return nil
}

// initialized reports whether the init containers have completed in this sandbox. They have if an ordinary container has been
// created in it.
func (s *situation) initialized(ready *cri.Sandbox) bool {
	for i := range s.pod.Spec.Containers {
		for _, c := range s.observed.Containers {
			if ready != nil && c.SandboxID == ready.ID && c.Name == s.pod.Spec.Containers[i].Name {
				return true
			}
		}
	}
	return false
}

// outcome returns the phase in which the pod ends, or "" if containers are still to run.
func (s *situation) outcome() corev1.PodPhase {
	if s.failure != nil {
		return corev1.PodFailed
	}
	if phase := s.pod.Status.Phase; ended(phase) {
		return phase
	}
	for _, f := range s.initContainers() {
		if f.kind == initial && f.isDone() && f.last().ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	return s.mainOutcome()
}

// mainOutcome returns the outcome of the ordinary containers.
func (s *situation) mainOutcome() corev1.PodPhase {
	phase := corev1.PodSucceeded
	for _, f := range s.mainContainers() {
		if !f.isDone() {
			return ""
		}
		if f.last().ExitCode != 0 {
			phase = corev1.PodFailed
		}
	}
	return phase
}

func ended(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

// running returns the runs that may be running.
func (s *situation) running() []cri.Container {
	var all []cri.Container
	for _, c := range s.observed.Containers {
		if maybeRunning(&c) {
			all = append(all, c)
		}
	}
	return all
}

// The back-off of Kubernetes between restarts of a container, and between pulls of an image.
const (
	firstRestart    = 10 * time.Second
	maxRestartDelay = 5 * time.Minute
	restartResetAge = 10 * time.Minute
)

// restart is the time of a container's last restart, and the back-off before the next.
type restart struct {
	delay time.Duration
	at    time.Time
}

// due returns the time before which a container that has ended must not be started again.
func (r restart) due(ended time.Time) time.Time {
	if r.isReset(ended) {
		return time.Time{}
	}
	return ended.Add(r.delay)
}

// next returns the restart to remember when a container that has ended is started again now.
func (r restart) next(ended, now time.Time) restart {
	if r.isReset(ended) {
		return restart{firstRestart, now}
	}
	return restart{min(2*r.delay, maxRestartDelay), now}
}

// isReset reports whether the container ran long enough before it ended that the back-off begins again.
func (r restart) isReset(ended time.Time) bool {
	return r.delay == 0 || ended.Sub(r.at) > restartResetAge
}

// restartSoFar returns the back-off of a container that an earlier agent has restarted, so that a new agent does not restart
// a crashing container more often than the earlier one did.
func restartSoFar(restarts uint32, startedAt time.Time) restart {
	if restarts == 0 {
		return restart{}
	}
	delay := maxRestartDelay
	if doublings := restarts - 1; doublings < 5 {
		delay = min(firstRestart<<doublings, maxRestartDelay)
	}
	return restart{delay, startedAt}
}

// retry is the time before which a failed step must not be tried again.
type retry struct {
	delay time.Duration
	until time.Time
}

// backoffLimits are the first and the longest delay of a retry.
type backoffLimits struct{ first, longest time.Duration }

var (
	pullBackoff    = backoffLimits{firstRestart, maxRestartDelay}
	mountBackoff   = backoffLimits{500 * time.Millisecond, 2 * time.Minute}
	runtimeBackoff = backoffLimits{time.Second, time.Minute}
	deleteBackoff  = backoffLimits{500 * time.Millisecond, 30 * time.Second}
)

// failed doubles the delay. jitter, from 0 to 1, adds up to a tenth of it, because many pods may have failed at the same time.
func (r *retry) failed(now time.Time, p backoffLimits, jitter float64) {
	r.delay = min(max(2*r.delay, p.first), p.longest)
	r.until = now.Add(r.delay + time.Duration(jitter*float64(r.delay)/10))
}

// mustWait reports whether it is too early to try again.
func (r *retry) mustWait(now time.Time) bool { return now.Before(r.until) }

// earliest returns the earlier of two times. A zero time means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// containerOf returns the container or init container of this name, or nil.
func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, all := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range all {
			if all[i].Name == name {
				return &all[i]
			}
		}
	}
	return nil
}
