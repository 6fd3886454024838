package pod

import (
	"context"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/node/cri"
)

// relistPeriod is how often the runtime is asked what it holds. It also bounds how late the end of a container is seen.
const relistPeriod = time.Second

// relist asks the runtime what it holds, for all workers together.
type relist struct {
	runtime Runtime
	clock   clock.WithTicker
	observe func([]cri.Pod)
	done    func(error) // is told how each listing went
	asked   chan struct{}

	mu      sync.Mutex
	waiting []chan error
	failing bool
}

func newRelist(runtime Runtime, c clock.WithTicker, observe func([]cri.Pod), done func(error)) *relist {
	return &relist{runtime: runtime, clock: c, observe: observe, done: done, asked: make(chan struct{}, 1)}
}

// run relists once a period, and whenever a worker asks.
func (r *relist) run(ctx context.Context) {
	ticker := r.clock.NewTicker(relistPeriod)
	defer ticker.Stop()
	for ctx.Err() == nil {
		r.once(ctx)
		select {
		case <-ctx.Done():
		case <-ticker.C():
		case <-r.asked:
		}
	}
}

// once answers those who asked before it began.
func (r *relist) once(ctx context.Context) {
	r.mu.Lock()
	waiting := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	held, err := r.runtime.Pods(ctx)
	if err == nil {
		r.observe(held)
	}
	r.done(err)
	r.log(ctx, err)
	for _, answer := range waiting {
		answer <- err
	}
}

// log tells of the first failure, and of the first success after it.
func (r *relist) log(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
		return
	case err != nil && !r.failing:
		klog.ErrorS(err, "The container runtime does not tell what runs")
	case err == nil && r.failing:
		klog.InfoS("The container runtime tells again what runs")
	}
	r.failing = err != nil
}

// fresh returns once the workers know what the runtime held at some moment after this call.
func (r *relist) fresh(ctx context.Context) error {
	answer := make(chan error, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, answer)
	r.mu.Unlock()
	select {
	case r.asked <- struct{}{}:
	default: // someone has asked already
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
