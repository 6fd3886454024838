package pod

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
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

// recover removes, once it is known which pods exist, what earlier agents left of others on this machine. What the runtime
// holds of such pods is found by observe.
func (p *Pods) recover(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-p.synced:
	}
	var again retry
	for ctx.Err() == nil {
		err := p.removeLeftovers(ctx)
		if err == nil {
			return
		}
		klog.ErrorS(err, "Will be tried again: remove what is left of earlier pods")
		again.failed(p.Clock.Now(), runtimePace, p.jitter())
		timer := p.Clock.NewTimer(again.until.Sub(p.Clock.Now()))
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// removeLeftovers lists before it asks which pods are known, so that those that come meanwhile are not among the leftovers.
// It waits for the runtime's list, since pods found there have workers, which remove more than files.
func (p *Pods) removeLeftovers(ctx context.Context) error {
	if err := p.relist.fresh(ctx); err != nil {
		return err
	}
	found, err := p.leftovers()
	if err != nil {
		return err
	}
	logged, err := p.Runtime.LoggedPods()
	if err != nil {
		return err
	}
	var errs []error
	known := p.known()
	isKnown := func(uid types.UID) bool { _, ok := slices.BinarySearch(known, uid); return ok }
	for _, uid := range found {
		if !isKnown(uid) {
			errs = append(errs, p.Volumes.TearDown(ctx, uid), p.files.remove(uid))
		}
	}
	for _, pod := range logged {
		if !isKnown(pod.UID) {
			errs = append(errs, p.Runtime.RemovePodLogs(pod.Namespace, pod.Name, pod.UID))
		}
	}
	return errors.Join(errs...)
}

// leftovers returns every pod of which there are volumes or files, logs apart.
func (p *Pods) leftovers() ([]types.UID, error) {
	mounted, err := p.Volumes.Existing()
	if err != nil {
		return nil, err
	}
	kept, err := p.files.existing()
	if err != nil {
		return nil, err
	}
	all := append(mounted, kept...)
	slices.Sort(all)
	return slices.Compact(all), nil
}
