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

// worker runs one pod. Its goroutine alone decides and acts; the others leave word and wake it.
type worker struct {
	*Pods
	uid             types.UID
	namespace, name string
	wakeup          chan struct{}

	mu      sync.Mutex
	pod     *corev1.Pod
	gone    bool
	held    cri.Pod
	hurried bool            // what failed is to be tried again at once
	stale   bool            // something was done since the runtime was last asked
	renamed map[string]bool // containers whose image was changed
	abandon context.CancelFunc
	halts   map[string]*halt // by container ID: what is being stopped

	// The rest is the goroutine's own.
	memory
	started   time.Time
	checked   int64 // generation of the pod that was checked last; -1 before
	failure   *failure
	images    map[string]*image
	waiting   map[string]corev1.ContainerStateWaiting
	volumes   map[string]string // nil until they are set up
	mounted   *corev1.Pod       // as it was when they were
	mounting  retry
	tornDown  bool // the volumes of a pod that has ended are gone
	announced string
	// announcing is when a sandbox may be told of again.
	announcing retry
	told       map[string]string // by container: the run whose back-off was told of
	messages   map[string]string // by run: its last words
	said       *corev1.PodStatus
	cleaning   retry
	deleting   retry
	deleted    bool // the authority has acknowledged the deletion
	finalSaid  bool
	swept      bool
	next       time.Time
}

func newWorker(p *Pods, pod *corev1.Pod, gone bool) *worker {
	w := &worker{
		Pods: p, uid: pod.UID, namespace: pod.Namespace, name: pod.Name, wakeup: make(chan struct{}, 1),
		pod: pod, gone: gone, stale: true, renamed: map[string]bool{}, halts: map[string]*halt{},
		memory: newMemory(), started: p.Clock.Now().Truncate(time.Second), checked: -1, images: map[string]*image{},
		waiting: map[string]corev1.ContainerStateWaiting{}, told: map[string]string{}, messages: map[string]string{},
	}
	if t := pod.Status.StartTime; t != nil {
		w.started = t.Time
	}
	return w
}

func (w *worker) isNamed(namespace, name string) bool {
	return w.namespace == namespace && w.name == name
}

// look returns what is known now.
func (w *worker) look() (pod *corev1.Pod, gone bool, held cri.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod, w.gone, w.held
}

// set takes a newer state of the pod. What is being started is given up when the pod is to end.
func (w *worker) set(pod *corev1.Pod) {
	w.mu.Lock()
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if was := containerOf(w.pod, c.Name); was != nil && was.Image != c.Image {
			w.renamed[c.Name] = true
		}
	}
	w.pod = withNoticeOf(w.pod, pod)
	w.giveUpLocked()
	w.mu.Unlock()
	w.wake()
}

// withNoticeOf returns pod with the on-renew annotation that it had before, so that a sandbox made later does not have
// another.
func withNoticeOf(before, pod *corev1.Pod) *corev1.Pod {
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

// remove takes note that the pod is gone.
func (w *worker) remove() {
	w.mu.Lock()
	w.gone = true
	w.giveUpLocked()
	w.mu.Unlock()
	w.wake()
}

func (w *worker) giveUpLocked() {
	if w.abandon != nil && (w.gone || w.pod.DeletionTimestamp != nil) {
		w.abandon()
	}
}

// observe takes what the runtime holds, and wakes the worker if that is news.
func (w *worker) observe(held cri.Pod) {
	w.mu.Lock()
	news := !reflect.DeepEqual(w.held, held)
	w.held = held
	w.mu.Unlock()
	if news {
		w.wake()
	}
}

// hurry has what failed tried again at once.
func (w *worker) hurry() {
	w.mu.Lock()
	w.hurried = true
	w.mu.Unlock()
	w.wake()
}

// touched says that the runtime must be asked before anything else is decided.
func (w *worker) touched() {
	w.mu.Lock()
	w.stale = true
	w.mu.Unlock()
	w.wake()
}

func (w *worker) wake() {
	select {
	case w.wakeup <- struct{}{}:
	default: // it has not looked since it was last woken
	}
}

// later has the worker look again at that time, if nothing wakes it before. Zero means never.
func (w *worker) later(at time.Time) { w.next = earlier(w.next, at) }

// run works until nothing is left of the pod, or ctx ends.
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

// step looks at the pod once, and does what is to be done now. It returns true when nothing is left of the pod.
func (w *worker) step(ctx context.Context) (done bool) {
	if !w.refresh(ctx) {
		w.later(w.Clock.Now().Add(relistPeriod))
		return false
	}
	s := w.situation()
	w.admit(s)
	p := decide(s)
	w.failure = s.failure
	if p.failure != nil {
		w.normal(s.pod, p.failure.Reason, "%s", p.failure.Message)
	}
	w.announce(s)
	w.agePulls(s)
	w.tellBackOff(s)
	w.publish(ctx, s)
	w.later(p.wake)
	return w.carryOut(ctx, s, &p)
}

// refresh asks the runtime if something was done since it was asked. It returns false while the runtime does not answer.
func (w *worker) refresh(ctx context.Context) bool {
	w.mu.Lock()
	stale := w.stale
	w.stale = false
	w.mu.Unlock()
	if !stale {
		return true
	}
	if err := w.relist.fresh(ctx); err != nil {
		w.mu.Lock()
		w.stale = true
		w.mu.Unlock()
		return false
	}
	return true
}

// situation gathers what is known now.
func (w *worker) situation() *situation {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &situation{
		pod: w.pod, held: w.held, now: w.Clock.Now(), started: w.started,
		ending: w.gone || w.pod.DeletionTimestamp != nil, killed: w.gone, failure: w.failure, memory: w.memory,
	}
	w.adoptRestartsLocked()
	w.noteChangedLocked()
	if w.hurried {
		w.hurried = false
		w.mounting.until = time.Time{}
		clear(w.attempts)
	}
	return s
}

// adoptRestartsLocked takes over the back-off of containers that an earlier agent restarted.
func (w *worker) adoptRestartsLocked() {
	for _, c := range w.held.Containers {
		if _, ok := w.restarts[c.Name]; !ok && c.State != cri.Created && c.Attempt > 0 {
			w.restarts[c.Name] = resumed(c.Attempt, c.StartedAt)
		}
	}
}

// noteChangedLocked marks the runs that have another image than the spec since it was changed.
func (w *worker) noteChangedLocked() {
	for name := range w.renamed {
		delete(w.renamed, name)
		for _, c := range runs(&w.held, name)[:min(1, len(runs(&w.held, name)))] {
			w.changed[name] = c.ID
		}
		delete(w.images, name)
	}
}

// admit refuses a pod that asks for what the agent does not do. One that runs already goes on, whatever was added to it.
func (w *worker) admit(s *situation) {
	if s.ending || ended(s.pod.Status.Phase) || w.checked == s.pod.Generation {
		return
	}
	isNew := w.checked == -1 && len(s.held.Sandboxes) == 0
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

// announce tells of sandboxes that came up or died.
func (w *worker) announce(s *situation) {
	var id string
	if live := s.live(); live != nil {
		id = live.ID
	}
	if id == w.announced {
		return
	}
	w.sandboxDown(s.pod, w.announced)
	switch {
	case id == "" || s.ending:
		return
	case w.announcing.waits(s.now):
		w.later(w.announcing.until)
		return
	}
	if w.OnSandbox != nil && w.OnSandbox(s.pod, id, true) != nil { // which has told of it
		w.announcing.failed(w.Clock.Now(), runtimePace, w.jitter())
		w.later(w.announcing.until)
		return
	}
	w.announced, w.announcing = id, retry{}
}

// sandboxDown tells that a sandbox is down, if it was told of as up.
func (w *worker) sandboxDown(pod *corev1.Pod, id string) {
	if id == "" || id != w.announced {
		return
	}
	w.announced = ""
	if w.OnSandbox != nil {
		_ = w.OnSandbox(pod, id, false)
	}
}

// tellBackOff tells once of each run that ended that the next is held back.
func (w *worker) tellBackOff(s *situation) {
	if s.halting() {
		return
	}
	for _, f := range append(s.initials(), s.regulars()...) {
		last := f.last()
		if last == nil || !f.again || !s.now.Before(f.due) || w.told[last.Name] == last.ID {
			continue
		}
		w.told[last.Name] = last.ID
		w.warningOf(s.pod, last.Name, reasonBackOff, "Back-off restarting failed container %s in pod %s", last.Name, fullName(s.pod))
	}
}

// publish says the pod's status, unless there is no object any more that could have one.
func (w *worker) publish(ctx context.Context, s *situation) {
	if s.killed || w.deleted {
		return
	}
	was := w.said
	if was == nil {
		was = &s.pod.Status
	}
	status := s.status(&details{
		was: was, waiting: w.waiting, runtimeName: w.runtimeName, hostIPs: w.HostIPs,
		message: func(c *corev1.Container, run *cri.Container) string { return w.lastWords(ctx, s.pod, c, run) },
	})
	w.said = &status
	w.status.say(w.uid, &status)
}

// carryOut does what was decided. It returns true when nothing is left of the pod.
func (w *worker) carryOut(ctx context.Context, s *situation, p *plan) (done bool) {
	w.halt(ctx, s, p.stop)
	if s.ending {
		return len(s.running()) == 0 && w.end(ctx, s)
	}
	w.clear(ctx, s, p)
	if p.over {
		w.releaseVolumes(ctx)
		return false
	}
	w.proceed(ctx, s, p)
	return false
}

// logFailure is for what is tried again and shows nowhere else. An agent that is to end has its calls given up: that is no
// failure.
func (w *worker) logFailure(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	klog.ErrorS(err, "Will be tried again: "+what, "pod", klog.KRef(w.namespace, w.name), "uid", w.uid)
}
