package pod

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/node/cri"
)

// stopState is the state of a container that is being stopped. The worker's mu guards it.
type stopState struct {
	deadline  time.Time // when it will be killed
	requested bool      // a call of StopContainer is under way
	retry     retry     // how long to wait before asking again
}

// stopContainers stops containers, and does not wait until they have ended. If it is called again with a shorter grace
// period, that one applies.
func (w *worker) stopContainers(ctx context.Context, s *situation, stops []stop) {
	for _, one := range stops {
		if w.beginStop(s, one) {
			w.group.Go(func() {
				err := w.Runtime.StopContainer(ctx, one.id, one.grace)
				w.stopDone(ctx, one, err)
			})
		}
	}
}

// beginStop reports whether StopContainer is to be called now, and records that it is.
func (w *worker) beginStop(s *situation, one stop) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	deadline := s.now.Add(one.grace)
	h, known := w.stopping[one.id]
	switch {
	case !known:
		h = &stopState{}
		w.stopping[one.id] = h
		w.normalOf(s.pod, one.name, reasonKilling, "%s", one.message)
	case deadline.Before(h.deadline.Add(-time.Second)):
	case h.requested:
		return false
	case h.retry.mustWait(s.now):
		w.wakeAt(h.retry.until)
		return false
	}
	h.deadline, h.requested = deadline, true
	return true
}

// stopDone records that StopContainer has returned.
func (w *worker) stopDone(ctx context.Context, one stop, err error) {
	if err != nil {
		w.logFailure(ctx, "stop container "+one.name, err)
	}
	w.mu.Lock()
	if h, ok := w.stopping[one.id]; ok {
		h.requested = false
		h.retry.failed(w.Clock.Now(), runtimeBackoff, w.jitter())
	}
	w.mu.Unlock()
	w.markStale()
}

// cleanUp stops and removes the sandboxes and containers in the plan.
func (w *worker) cleanUp(ctx context.Context, s *situation, p *plan) {
	if len(p.stopSandboxes)+len(p.removeContainers)+len(p.removeSandboxes) == 0 {
		w.cleanUpRetry = retry{}
		return
	}
	if w.cleanUpRetry.mustWait(s.now) {
		w.wakeAt(w.cleanUpRetry.until)
		return
	}
	// Each attempt is treated as a failure until the plan has nothing more to remove, so that the worker does not repeat it
	// without pause if the runtime goes on to list what was removed.
	w.cleanUpRetry.failed(s.now, runtimeBackoff, w.jitter())
	for _, id := range p.stopSandboxes {
		w.stopSandbox(ctx, s, id)
	}
	for _, id := range p.removeContainers {
		w.removeContainer(ctx, s, id)
	}
	for _, id := range p.removeSandboxes {
		if err := w.Runtime.RemoveSandbox(ctx, id); err != nil {
			w.logFailure(ctx, "remove a sandbox", err)
		}
	}
	w.markStale()
}

func (w *worker) stopSandbox(ctx context.Context, s *situation, id string) {
	w.sandboxDown(s.pod, id)
	if err := w.Runtime.StopSandbox(ctx, id); err != nil {
		w.logFailure(ctx, "stop a sandbox", err)
		return
	}
	w.stopped[id] = true
}

// removeContainer removes a container and its termination message.
func (w *worker) removeContainer(ctx context.Context, s *situation, id string) {
	if err := w.Runtime.RemoveContainer(ctx, id); err != nil {
		w.logFailure(ctx, "remove a container", err)
		return
	}
	delete(w.messages, id)
	w.mu.Lock()
	delete(w.stopping, id)
	w.mu.Unlock()
	for _, c := range s.observed.Containers {
		if c.ID == id && c.State == cri.Exited {
			w.files.removeTerminationLog(w.uid, c.Name, c.Attempt)
		}
	}
}

// releaseVolumes tears down the volumes of a pod that has ended, so that its tokens are no longer renewed.
func (w *worker) releaseVolumes(ctx context.Context) {
	if w.tornDown {
		return
	}
	if w.mountRetry.mustWait(w.Clock.Now()) {
		w.wakeAt(w.mountRetry.until)
		return
	}
	if err := w.tearDownVolumes(ctx); err != nil {
		w.logFailure(ctx, "tear down volumes", err)
		w.mountRetry.failed(w.Clock.Now(), mountBackoff, w.jitter())
		w.wakeAt(w.mountRetry.until)
		return
	}
	w.volumes = nil
	w.Objects.Release(w.uid)
}

// finish removes the pod's object, and then everything of the pod on this machine, once no container runs any more. The object
// is removed first, because its tokens end with it. finish returns true if nothing is left.
func (w *worker) finish(ctx context.Context, s *situation) (done bool) {
	if !s.killed {
		w.deleteObject(ctx, s)
	}
	clean := w.removeEverything(ctx, s)
	_, gone, _ := w.snapshot()
	return clean && gone
}

// deleteObject writes the pod's last status and deletes the object. If the authority does not answer, it is called again
// later.
func (w *worker) deleteObject(ctx context.Context, s *situation) {
	if w.deleted {
		return
	}
	if w.deleteRetry.mustWait(s.now) {
		w.wakeAt(w.deleteRetry.until)
		return
	}
	if !w.finalWritten {
		w.finalWritten = true
		if err := w.status.writeFinal(ctx, w.uid); err != nil {
			klog.V(2).InfoS("The last status of a pod was not written", "pod", klog.KObj(s.pod), "err", err)
		}
	}
	ask, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	err := w.API.Delete(ask, w.namespace, w.name, w.uid)
	switch {
	case err == nil:
		w.deleted = true // Remove will be called, unless the object has a finalizer
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		w.remove()
	default:
		if w.deleteRetry.delay == 0 {
			w.logFailure(ctx, "delete the pod, which has ended", err)
		}
		w.deleteRetry.failed(w.Clock.Now(), deleteBackoff, w.jitter())
		w.wakeAt(w.deleteRetry.until)
	}
}

// removeEverything removes what is left of the pod on this machine. It removes volumes first, because they contain secrets.
func (w *worker) removeEverything(ctx context.Context, s *situation) (clean bool) {
	empty := len(s.observed.Sandboxes)+len(s.observed.Containers) == 0
	if w.everythingRemoved && empty {
		return true
	}
	if !empty && w.cleanUpRetry.mustWait(s.now) {
		w.wakeAt(w.cleanUpRetry.until)
		return false
	}
	err := w.tearDownVolumes(ctx)
	if empty {
		err = errors.Join(err, w.removeFiles())
	} else {
		err = errors.Join(err, w.removeFromRuntime(ctx, s))
	}
	if err != nil {
		w.logFailure(ctx, "remove what is left of the pod", err)
		if ctx.Err() == nil {
			w.warning(s.pod, reasonFailedCleanUp, "error killing pod: %v", err)
		}
		w.cleanUpRetry.failed(w.Clock.Now(), runtimeBackoff, w.jitter())
		w.wakeAt(w.cleanUpRetry.until)
		return false
	}
	if w.everythingRemoved = empty; !empty {
		w.cleanUpRetry.failed(w.Clock.Now(), runtimeBackoff, w.jitter()) // see cleanUp
		w.markStale()
	}
	return empty
}

func (w *worker) tearDownVolumes(ctx context.Context) error {
	if w.tornDown {
		return nil
	}
	err := w.Volumes.TearDown(ctx, w.uid)
	w.tornDown = err == nil
	return err
}

// removeFiles removes the pod's logs and files. No container may exist that writes to them.
func (w *worker) removeFiles() error {
	return errors.Join(w.Runtime.RemovePodLogs(w.namespace, w.name, w.uid), w.files.remove(w.uid))
}

// removeFromRuntime removes the containers and the sandboxes.
func (w *worker) removeFromRuntime(ctx context.Context, s *situation) error {
	var errs []error
	for _, sandbox := range s.observed.Sandboxes {
		w.sandboxDown(s.pod, sandbox.ID)
		errs = append(errs, w.Runtime.StopSandbox(ctx, sandbox.ID))
	}
	for _, c := range s.observed.Containers {
		errs = append(errs, w.Runtime.RemoveContainer(ctx, c.ID))
	}
	for _, sandbox := range s.observed.Sandboxes {
		errs = append(errs, w.Runtime.RemoveSandbox(ctx, sandbox.ID))
	}
	return errors.Join(errs...)
}
