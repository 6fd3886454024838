package pod

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"
)

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
