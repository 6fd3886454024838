package pod

import (
	"context"
	"time"

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
