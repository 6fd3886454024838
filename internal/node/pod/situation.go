package pod

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/node/cri"
)

// situation is all that is known of a pod at one moment. What is to be done, and what the status says, follow from it alone.
type situation struct {
	pod  *corev1.Pod
	held cri.Pod
	now  time.Time
	// started is when the pod was first seen on this node.
	started time.Time
	// ending: the object is to be deleted. killed: it is gone, so nothing has any time left.
	ending, killed bool
	// failure, where not nil, is why the pod may not run, or not any more.
	failure *failure
	memory
}

// failure is a pod's end that does not come from its containers.
type failure struct{ Reason, Message string }

// memory is what a worker remembers from one look at its pod to the next. All of it may be lost: then restarts are as the
// runtime's counts tell, and what failed is tried at once.
type memory struct {
	restarts map[string]restart // by container
	attempts map[string]retry   // by container: making it failed
	sandbox  retry
	// stopped are the sandboxes whose network has been given back.
	stopped map[string]bool
	// changed holds, by container, the run that has another image than the pod's spec by now.
	changed map[string]string
}

func newMemory() memory {
	return memory{restarts: map[string]restart{}, attempts: map[string]retry{}, stopped: map[string]bool{}, changed: map[string]string{}}
}

// kind tells apart what a pod's containers are for.
type kind int

const (
	regular kind = iota
	initial
	sidecar // an init container that goes on running
)

// fate is what has become of one container of a pod, and what is to become of it.
type fate struct {
	container *corev1.Container
	kind      kind
	runs      []cri.Container // the newest first, without what never started
	// again says that the container ended and is to be started again, no earlier than due.
	again bool
	due   time.Time
	delay time.Duration // how due came about
}

// last returns the newest run, nil before the first.
func (f *fate) last() *cri.Container {
	if len(f.runs) == 0 {
		return nil
	}
	return &f.runs[0]
}

func (f *fate) alive() bool { return f.last() != nil && alive(f.last()) }

// over says that the container ended for good.
func (f *fate) over() bool { return f.last() != nil && f.last().State == cri.Exited && !f.again }

// succeededIn says that the container ended well in this sandbox.
func (f *fate) succeededIn(sandbox *cri.Sandbox) bool {
	l := f.last()
	return l != nil && l.State == cri.Exited && l.ExitCode == 0 && sandbox != nil && l.SandboxID == sandbox.ID
}

// alive says whether a run may still do something. What is in no known state may.
func alive(c *cri.Container) bool { return c.State == cri.Running || c.State == cri.Unknown }

// initials returns what became of the init containers, in order.
func (s *situation) initials() []fate {
	var all []fate
	for i := range s.pod.Spec.InitContainers {
		c := &s.pod.Spec.InitContainers[i]
		all = append(all, s.fate(c, initKind(c)))
	}
	return all
}

func initKind(c *corev1.Container) kind {
	if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
		return sidecar
	}
	return initial
}

// regulars returns what became of the ordinary containers, in order.
func (s *situation) regulars() []fate {
	var all []fate
	for i := range s.pod.Spec.Containers {
		all = append(all, s.fate(&s.pod.Spec.Containers[i], regular))
	}
	return all
}

func (s *situation) fate(c *corev1.Container, k kind) fate {
	f := fate{container: c, kind: k, runs: runs(&s.held, c.Name)}
	if len(f.runs) == 0 {
		f.runs = s.lost(c.Name)
	}
	last := f.last()
	if last == nil || last.State != cri.Exited {
		return f
	}
	f.again = s.restarts(c.Name, k, last)
	if k == initial && last.ExitCode == 0 {
		return f
	}
	if r := s.memory.restarts[c.Name]; f.again && s.changed[c.Name] != last.ID && !r.forgotten(last.FinishedAt) {
		f.due, f.delay = r.due(last.FinishedAt), r.delay
	}
	return f
}

// restarts says whether a container that ended is to be started again.
func (s *situation) restarts(name string, k kind, last *cri.Container) bool {
	policy := s.pod.Spec.RestartPolicy
	switch {
	case s.changed[name] == last.ID, k == sidecar:
		return true
	case k == initial && last.ExitCode == 0:
		// An init container runs once in each sandbox.
		live := s.live()
		return live == nil || live.ID != last.SandboxID
	case policy == corev1.RestartPolicyNever:
		return false
	case policy == corev1.RestartPolicyOnFailure:
		return last.ExitCode != 0
	}
	return true
}

// runs returns the runs of a container that were started, the newest first.
func runs(held *cri.Pod, name string) []cri.Container {
	var all []cri.Container
	for _, c := range held.Containers {
		if c.Name == name && c.State != cri.Created {
			all = append(all, c)
		}
	}
	return all
}

// lost stands for a run that the status tells of and the runtime does not know any more. A container that must not run
// twice is not run again because its traces were removed.
func (s *situation) lost(name string) []cri.Container {
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

// live returns the sandbox in which containers can be started, nil where there is none.
func (s *situation) live() *cri.Sandbox {
	if len(s.held.Sandboxes) > 0 && s.held.Sandboxes[0].Ready {
		return &s.held.Sandboxes[0]
	}
	return nil
}

// initialized says whether the init containers have done their work in this sandbox: an ordinary one has run in it.
func (s *situation) initialized(live *cri.Sandbox) bool {
	for i := range s.pod.Spec.Containers {
		for _, c := range s.held.Containers {
			if live != nil && c.SandboxID == live.ID && c.Name == s.pod.Spec.Containers[i].Name {
				return true
			}
		}
	}
	return false
}

// outcome returns the phase the pod ends in, "" while there is something to run.
func (s *situation) outcome() corev1.PodPhase {
	if s.failure != nil {
		return corev1.PodFailed
	}
	if phase := s.pod.Status.Phase; ended(phase) {
		return phase
	}
	for _, f := range s.initials() {
		if f.kind == initial && f.over() && f.last().ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	return s.sum()
}

// sum is the outcome of the ordinary containers.
func (s *situation) sum() corev1.PodPhase {
	phase := corev1.PodSucceeded
	for _, f := range s.regulars() {
		if !f.over() {
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

// running returns the containers that may still do something.
func (s *situation) running() []cri.Container {
	var all []cri.Container
	for _, c := range s.held.Containers {
		if alive(&c) {
			all = append(all, c)
		}
	}
	return all
}

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

// containerOf finds a container by name, of any kind.
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
