package pod

import (
	"context"
	"maps"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/node/cri"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/podsupport"
)

// worker runs one pod. Its goroutine decides and acts. Other goroutines set fields under mu and wake it.
type worker struct {
	*Pods
	uid             types.UID
	namespace, name string
	wakeup          chan struct{}

	mu             sync.Mutex
	pod            *corev1.Pod
	gone           bool
	observed       cri.Pod
	retryRequested bool            // failed steps are to be tried again at once
	needsRelist    bool            // the runtime was changed since it was last listed
	newImages      map[string]bool // containers whose image in the spec was changed
	cancelWork     context.CancelFunc
	stopping       map[string]*stopState // by container ID

	// Only the worker's goroutine uses the fields below.
	memory
	started           time.Time
	checked           int64 // the pod's generation at the last admit, -1 before the first
	failure           *failure
	images            map[string]*image
	waiting           map[string]corev1.ContainerStateWaiting
	volumes           map[string]string // nil until they are set up
	mounted           *corev1.Pod       // the pod for which the volumes were set up
	mountRetry        retry
	tornDown          bool              // the volumes of an ended pod have been removed
	notifiedSandbox   string            // the sandbox for which OnSandbox was last called with up
	notifyRetry       retry             // of OnSandbox
	reportedBackOff   map[string]string // by container: the run for whose back-off an event was recorded
	messages          map[string]string // by run: its termination message
	published         *corev1.PodStatus // the last status
	cleanUpRetry      retry
	deleteRetry       retry
	deleted           bool // the authority has acknowledged the deletion
	finalWritten      bool
	everythingRemoved bool
	next              time.Time
}

func newWorker(p *Pods, pod *corev1.Pod, gone bool) *worker {
	w := &worker{
		Pods: p, uid: pod.UID, namespace: pod.Namespace, name: pod.Name, wakeup: make(chan struct{}, 1),
		pod: pod, gone: gone, needsRelist: true, newImages: map[string]bool{}, stopping: map[string]*stopState{},
		memory: newMemory(), started: p.Clock.Now().Truncate(time.Second), checked: -1, images: map[string]*image{},
		waiting: map[string]corev1.ContainerStateWaiting{}, reportedBackOff: map[string]string{}, messages: map[string]string{},
	}
	if t := pod.Status.StartTime; t != nil {
		w.started = t.Time
	}
	return w
}

func (w *worker) isNamed(namespace, name string) bool {
	return w.namespace == namespace && w.name == name
}

// snapshot returns the current state of the pod.
func (w *worker) snapshot() (pod *corev1.Pod, gone bool, observed cri.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod, w.gone, w.observed
}

// set sets a newer state of the pod. If the pod is to end, it cancels the start of containers.
func (w *worker) set(pod *corev1.Pod) {
	w.mu.Lock()
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if former := containerOf(w.pod, c.Name); former != nil && former.Image != c.Image {
			w.newImages[c.Name] = true
		}
	}
	w.pod = keepNotice(w.pod, pod)
	w.cancelWorkLocked()
	w.mu.Unlock()
	w.wake()
}

// keepNotice returns pod with the on-renew annotation that it had before, so that a later sandbox has the same annotation.
func keepNotice(before, pod *corev1.Pod) *corev1.Pod {
	text, had := before.Annotations[podannotation.OnRenew]
	if now, has := pod.Annotations[podannotation.OnRenew]; now == text && has == had {
		return pod
	}
	kept := *pod
	kept.Annotations = maps.Clone(pod.Annotations)
	delete(kept.Annotations, podannotation.OnRenew)
	if had {
		if kept.Annotations == nil {
			kept.Annotations = map[string]string{}
		}
		kept.Annotations[podannotation.OnRenew] = text
	}
	return &kept
}

// remove records that the pod's object is gone.
func (w *worker) remove() {
	w.mu.Lock()
	w.gone = true
	w.cancelWorkLocked()
	w.mu.Unlock()
	w.wake()
}

func (w *worker) cancelWorkLocked() {
	if w.cancelWork != nil && (w.gone || w.pod.DeletionTimestamp != nil) {
		w.cancelWork()
	}
}

// observe sets the pod's state in the runtime, and wakes the worker if it has changed.
func (w *worker) observe(observed cri.Pod) {
	w.mu.Lock()
	news := !reflect.DeepEqual(w.observed, observed)
	w.observed = observed
	w.mu.Unlock()
	if news {
		w.wake()
	}
}

// retryNow wakes the worker to try failed steps again at once.
func (w *worker) retryNow() {
	w.mu.Lock()
	w.retryRequested = true
	w.mu.Unlock()
	w.wake()
}

// markStale records that the runtime must be listed before the next decision.
func (w *worker) markStale() {
	w.mu.Lock()
	w.needsRelist = true
	w.mu.Unlock()
	w.wake()
}

func (w *worker) wake() {
	select {
	case w.wakeup <- struct{}{}:
	default: // the worker has been woken already
	}
}

// wakeAt wakes the worker at that time, if nothing else wakes it before. Zero means never.
func (w *worker) wakeAt(at time.Time) { w.next = earliest(w.next, at) }

// run runs the pod until nothing of it is left, or ctx ends.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.next = time.Time{}
		if w.step(ctx) {
			return
		}
		w.pause(ctx)
	}
}

func (w *worker) pause(ctx context.Context) {
	var due <-chan time.Time
	if !w.next.IsZero() {
		timer := w.Clock.NewTimer(max(w.next.Sub(w.Clock.Now()), 0))
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-w.wakeup:
	case <-due:
	}
}

// step takes the next step for the pod. It returns true if nothing of the pod is left.
func (w *worker) step(ctx context.Context) (done bool) {
	if !w.refresh(ctx) {
		w.wakeAt(w.Clock.Now().Add(relistPeriod))
		return false
	}
	s := w.situation()
	w.admit(s)
	p := decide(s)
	w.failure = s.failure
	if p.failure != nil {
		w.normal(s.pod, p.failure.Reason, "%s", p.failure.Message)
	}
	w.notifySandbox(s)
	w.showPullBackOff(s)
	w.reportBackOff(s)
	w.publish(ctx, s)
	w.wakeAt(p.wake)
	return w.execute(ctx, s, &p)
}

// refresh lists the runtime if it was changed since it was last listed. It returns false if the runtime does not answer.
func (w *worker) refresh(ctx context.Context) bool {
	w.mu.Lock()
	needsRelist := w.needsRelist
	w.needsRelist = false
	w.mu.Unlock()
	if !needsRelist {
		return true
	}
	if err := w.relist.refresh(ctx); err != nil {
		w.mu.Lock()
		w.needsRelist = true
		w.mu.Unlock()
		return false
	}
	return true
}

// situation returns the current situation of the pod.
func (w *worker) situation() *situation {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &situation{
		pod: w.pod, observed: w.observed, now: w.Clock.Now(), started: w.started,
		ending: w.gone || w.pod.DeletionTimestamp != nil, killed: w.gone, failure: w.failure, memory: w.memory,
	}
	w.adoptRestartsLocked()
	w.markImageChangesLocked()
	if w.retryRequested {
		w.retryRequested = false
		w.mountRetry.until = time.Time{}
		clear(w.attempts)
	}
	return s
}

// adoptRestartsLocked continues the back-off of containers that an earlier agent has restarted.
func (w *worker) adoptRestartsLocked() {
	for _, c := range w.observed.Containers {
		if _, ok := w.restarts[c.Name]; !ok && c.State != cri.Created && c.Attempt > 0 {
			w.restarts[c.Name] = restartSoFar(c.Attempt, c.StartedAt)
		}
	}
}

// markImageChangesLocked marks the runs whose image differs from the image in the spec.
func (w *worker) markImageChangesLocked() {
	for name := range w.newImages {
		delete(w.newImages, name)
		for _, c := range runs(&w.observed, name)[:min(1, len(runs(&w.observed, name)))] {
			w.changed[name] = c.ID
		}
		delete(w.images, name)
	}
}

// admit refuses a new pod with fields that the agent does not support. A pod that runs already goes on.
func (w *worker) admit(s *situation) {
	if s.ending || ended(s.pod.Status.Phase) || w.checked == s.pod.Generation {
		return
	}
	isNew := w.checked == -1 && len(s.observed.Sandboxes) == 0
	w.checked = s.pod.Generation
	w.Objects.Hold(s.pod)
	errs := podsupport.Unsupported(s.pod)
	for _, err := range errs {
		w.warning(s.pod, reasonUnsupportedField, "%s", err.Error())
	}
	if isNew && len(errs) > 0 {
		s.failure = &failure{reasonUnsupportedField, "Pod was rejected: " + errs.ToAggregate().Error()}
	}
}

// notifySandbox calls OnSandbox for a sandbox that has started or died.
func (w *worker) notifySandbox(s *situation) {
	var id string
	if live := s.readySandbox(); live != nil {
		id = live.ID
	}
	if id == w.notifiedSandbox {
		return
	}
	w.sandboxDown(s.pod, w.notifiedSandbox)
	switch {
	case id == "" || s.ending:
		return
	case w.notifyRetry.mustWait(s.now):
		w.wakeAt(w.notifyRetry.until)
		return
	}
	if w.OnSandbox != nil && w.OnSandbox(s.pod, id, true) != nil { // OnSandbox reports the error itself
		w.notifyRetry.failed(w.Clock.Now(), runtimeBackoff, w.jitter())
		w.wakeAt(w.notifyRetry.until)
		return
	}
	w.notifiedSandbox, w.notifyRetry = id, retry{}
}

// sandboxDown calls OnSandbox without up for a sandbox, if it was called with up before.
func (w *worker) sandboxDown(pod *corev1.Pod, id string) {
	if id == "" || id != w.notifiedSandbox {
		return
	}
	w.notifiedSandbox = ""
	if w.OnSandbox != nil {
		_ = w.OnSandbox(pod, id, false)
	}
}

// reportBackOff records one event for each run that has ended and whose restart is in its back-off.
func (w *worker) reportBackOff(s *situation) {
	if s.willStartNothing() {
		return
	}
	for _, f := range append(s.initContainers(), s.mainContainers()...) {
		last := f.last()
		if last == nil || !f.mustRestart || !s.now.Before(f.due) || w.reportedBackOff[last.Name] == last.ID {
			continue
		}
		w.reportedBackOff[last.Name] = last.ID
		w.warningOf(s.pod, last.Name, reasonBackOff, "Back-off restarting failed container %s in pod %s", last.Name, fullName(s.pod))
	}
}

// publish sets the pod's status, unless the object is gone.
func (w *worker) publish(ctx context.Context, s *situation) {
	if s.killed || w.deleted {
		return
	}
	former := w.published
	if former == nil {
		former = &s.pod.Status
	}
	status := s.status(&statusInput{
		former: former, waiting: w.waiting, runtimeName: w.runtimeName, hostIPs: w.HostIPs,
		message: func(c *corev1.Container, run *cri.Container) string { return w.terminationMessage(ctx, s.pod, c, run) },
	})
	w.published = &status
	w.status.set(w.uid, &status)
}

// execute executes the plan. It returns true if nothing of the pod is left.
func (w *worker) execute(ctx context.Context, s *situation, p *plan) (done bool) {
	w.stopContainers(ctx, s, p.stop)
	if s.ending {
		return len(s.running()) == 0 && w.finish(ctx, s)
	}
	w.cleanUp(ctx, s, p)
	if p.podEnded {
		w.releaseVolumes(ctx)
		return false
	}
	w.startAll(ctx, s, p)
	return false
}

// logFailure logs the failure of a step that is tried again and is reported nowhere else. It logs nothing once ctx has ended,
// because the agent then cancels its own calls.
func (w *worker) logFailure(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	klog.ErrorS(err, "Could not "+what+"; trying again", "pod", klog.KRef(w.namespace, w.name), "uid", w.uid)
}
