package pod

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/node/cri"
)

// halt is a container that is being stopped. Its fields are guarded by the worker's mu.
type halt struct {
	deadline time.Time // when it will be killed
	asked    bool      // the runtime is at it
	retry    retry     // how long to wait before asking again
}

// halt has containers stopped, without waiting for it. A shorter time than was given before takes effect.
func (w *worker) halt(ctx context.Context, s *situation, stops []stop) {
	for _, one := range stops {
		if w.mayHalt(s, one) {
			w.group.Go(func() {
				err := w.Runtime.StopContainer(ctx, one.id, one.grace)
				w.halted(ctx, one, err)
			})
		}
	}
}

// mayHalt says whether the runtime is to be asked, and if so takes note that it is.
func (w *worker) mayHalt(s *situation, one stop) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	deadline := s.now.Add(one.grace)
	h, known := w.halts[one.id]
	switch {
	case !known:
		h = &halt{}
		w.halts[one.id] = h
		w.normalOf(s.pod, one.name, reasonKilling, "%s", one.message)
	case deadline.Before(h.deadline.Add(-time.Second)):
	case h.asked:
		return false
	case h.retry.waits(s.now):
		w.later(h.retry.until)
		return false
	}
	h.deadline, h.asked = deadline, true
	return true
}

// halted takes note that the runtime is done with it, well or not.
func (w *worker) halted(ctx context.Context, one stop, err error) {
	if err != nil {
		w.logFailure(ctx, "stop container "+one.name, err)
	}
	w.mu.Lock()
	if h, ok := w.halts[one.id]; ok {
		h.asked = false
		h.retry.failed(w.Clock.Now(), runtimePace, w.jitter())
	}
	w.mu.Unlock()
	w.touched()
}

// clear removes what is of no more use.
func (w *worker) clear(ctx context.Context, s *situation, p *plan) {
	if len(p.drop)+len(p.remove)+len(p.gone) == 0 {
		w.cleaning = retry{}
		return
	}
	if w.cleaning.waits(s.now) {
		w.later(w.cleaning.until)
		return
	}
	// Counted as a failure until the runtime holds none of it any more, so that nothing spins if that never comes.
	w.cleaning.failed(s.now, runtimePace, w.jitter())
	for _, id := range p.drop {
		w.dropSandbox(ctx, s, id)
	}
	for _, id := range p.remove {
		w.removeRun(ctx, s, id)
	}
	for _, id := range p.gone {
		if err := w.Runtime.RemoveSandbox(ctx, id); err != nil {
			w.logFailure(ctx, "remove a sandbox", err)
		}
	}
	w.touched()
}

func (w *worker) dropSandbox(ctx context.Context, s *situation, id string) {
	w.sandboxDown(s.pod, id)
	if err := w.Runtime.StopSandbox(ctx, id); err != nil {
		w.logFailure(ctx, "stop a sandbox", err)
		return
	}
	w.stopped[id] = true
}

// removeRun removes a container and its last words.
func (w *worker) removeRun(ctx context.Context, s *situation, id string) {
	if err := w.Runtime.RemoveContainer(ctx, id); err != nil {
		w.logFailure(ctx, "remove a container", err)
		return
	}
	delete(w.messages, id)
	w.mu.Lock()
	delete(w.halts, id)
	w.mu.Unlock()
	for _, c := range s.held.Containers {
		if c.ID == id && c.State == cri.Exited {
			w.files.removeTermination(w.uid, c.Name, c.Attempt)
		}
	}
}

// releaseVolumes tears down the volumes of a pod that has ended: its tokens need not be renewed any more.
func (w *worker) releaseVolumes(ctx context.Context) {
	if w.tornDown {
		return
	}
	if w.mounting.waits(w.Clock.Now()) {
		w.later(w.mounting.until)
		return
	}
	if err := w.sweepVolumes(ctx); err != nil {
		w.logFailure(ctx, "tear down volumes", err)
		w.mounting.failed(w.Clock.Now(), mountPace, w.jitter())
		w.later(w.mounting.until)
		return
	}
	w.volumes = nil
	w.Objects.Release(w.uid)
}

// end removes the object, and then everything of the pod, once nothing of it runs any more. The object goes first because
// its tokens end with it. It returns true when nothing is left.
func (w *worker) end(ctx context.Context, s *situation) (done bool) {
	if !s.killed {
		w.deleteObject(ctx, s)
	}
	clean := w.sweep(ctx, s)
	_, gone, _ := w.look()
	return clean && gone
}

// deleteObject removes the object, saying its last status first. While the authority is away it is tried again and again.
func (w *worker) deleteObject(ctx context.Context, s *situation) {
	if w.deleted {
		return
	}
	if w.deleting.waits(s.now) {
		w.later(w.deleting.until)
		return
	}
	if !w.finalSaid {
		w.finalSaid = true
		if err := w.status.lastWord(ctx, w.uid); err != nil {
			klog.V(2).InfoS("The last status of a pod was not written", "pod", klog.KObj(s.pod), "err", err)
		}
	}
	ask, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	err := w.API.Delete(ask, w.namespace, w.name, w.uid)
	switch {
	case err == nil:
		w.deleted = true // Remove follows, unless someone's finalizer holds the object
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		w.remove()
	default:
		if w.deleting.delay == 0 {
			w.logFailure(ctx, "delete the pod, which has ended", err)
		}
		w.deleting.failed(w.Clock.Now(), deletePace, w.jitter())
		w.later(w.deleting.until)
	}
}

// sweep removes what is left of the pod on this machine: files with secrets first.
func (w *worker) sweep(ctx context.Context, s *situation) (clean bool) {
	empty := len(s.held.Sandboxes)+len(s.held.Containers) == 0
	if w.swept && empty {
		return true
	}
	if !empty && w.cleaning.waits(s.now) {
		w.later(w.cleaning.until)
		return false
	}
	err := w.sweepVolumes(ctx)
	if empty {
		err = errors.Join(err, w.sweepFiles())
	} else {
		err = errors.Join(err, w.sweepRuntime(ctx, s))
	}
	if err != nil {
		w.logFailure(ctx, "remove what is left of the pod", err)
		if ctx.Err() == nil {
			w.warning(s.pod, reasonFailedCleanUp, "error killing pod: %v", err)
		}
		w.cleaning.failed(w.Clock.Now(), runtimePace, w.jitter())
		w.later(w.cleaning.until)
		return false
	}
	if w.swept = empty; !empty {
		w.cleaning.failed(w.Clock.Now(), runtimePace, w.jitter()) // nothing spins should the runtime go on to hold some of it
		w.touched()
	}
	return empty
}

func (w *worker) sweepVolumes(ctx context.Context) error {
	if w.tornDown {
		return nil
	}
	err := w.Volumes.TearDown(ctx, w.uid)
	w.tornDown = err == nil
	return err
}

// sweepFiles removes the logs and the pod's files, once nothing is there that could write more.
func (w *worker) sweepFiles() error {
	return errors.Join(w.Runtime.RemovePodLogs(w.namespace, w.name, w.uid), w.files.remove(w.uid))
}

// sweepRuntime removes the containers and the sandboxes.
func (w *worker) sweepRuntime(ctx context.Context, s *situation) error {
	var errs []error
	for _, sandbox := range s.held.Sandboxes {
		w.sandboxDown(s.pod, sandbox.ID)
		errs = append(errs, w.Runtime.StopSandbox(ctx, sandbox.ID))
	}
	for _, c := range s.held.Containers {
		errs = append(errs, w.Runtime.RemoveContainer(ctx, c.ID))
	}
	for _, sandbox := range s.held.Sandboxes {
		errs = append(errs, w.Runtime.RemoveSandbox(ctx, sandbox.ID))
	}
	return errors.Join(errs...)
}
