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

// relistPeriod is how often the runtime's pods are listed. It bounds the delay until the end of a container is noticed.
const relistPeriod = time.Second

// relist lists the runtime's pods for all workers.
type relist struct {
	runtime Runtime
	clock   clock.WithTicker
	observe func([]cri.Pod)
	report  func(error) // is called with the result of each listing
	wakeup  chan struct{}

	mu      sync.Mutex
	waiting []chan error
	failing bool
}

func newRelist(runtime Runtime, c clock.WithTicker, observe func([]cri.Pod), report func(error)) *relist {
	return &relist{runtime: runtime, clock: c, observe: observe, report: report, wakeup: make(chan struct{}, 1)}
}

// run lists once in each period, and whenever a worker calls refresh.
func (r *relist) run(ctx context.Context) {
	ticker := r.clock.NewTicker(relistPeriod)
	defer ticker.Stop()
	for ctx.Err() == nil {
		r.list(ctx)
		select {
		case <-ctx.Done():
		case <-ticker.C():
		case <-r.wakeup:
		}
	}
}

// list lists once. It returns the result to the calls of refresh that were made before.
func (r *relist) list(ctx context.Context) {
	r.mu.Lock()
	waiting := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	observed, err := r.runtime.Pods(ctx)
	if err == nil {
		r.observe(observed)
	}
	r.report(err)
	r.log(ctx, err)
	for _, answer := range waiting {
		answer <- err
	}
}

// log logs the first failure, and the first success after it.
func (r *relist) log(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
		return
	case err != nil && !r.failing:
		klog.ErrorS(err, "Could not list the pods of the container runtime; trying again")
	case err == nil && r.failing:
		klog.InfoS("The container runtime lists its pods again")
	}
	r.failing = err != nil
}

// refresh returns when the workers have observed a state of the runtime that is later than this call.
func (r *relist) refresh(ctx context.Context) error {
	answer := make(chan error, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, answer)
	r.mu.Unlock()
	select {
	case r.wakeup <- struct{}{}:
	default: // a listing is due already
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// recover removes the volumes, files and logs that earlier agents have left on this machine and whose pods no longer exist. It
// waits until all existing pods are known. The method observe finds the containers of such pods.
func (p *Pods) recover(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-p.synced:
	}
	var attempt retry
	for ctx.Err() == nil {
		err := p.removeLeftovers(ctx)
		if err == nil {
			return
		}
		klog.ErrorS(err, "Could not remove what earlier pods have left; trying again")
		attempt.failed(p.Clock.Now(), runtimeBackoff, p.jitter())
		timer := p.Clock.NewTimer(attempt.until.Sub(p.Clock.Now()))
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// removeLeftovers lists volumes, files and logs first and the known pods afterwards, so that it does not remove anything of a pod
// that has just been created. It waits for a listing of the runtime: pods that are found there get a worker, which removes
// everything of the pod.
func (p *Pods) removeLeftovers(ctx context.Context) error {
	if err := p.relist.refresh(ctx); err != nil {
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

// leftovers returns every pod that has volumes or files, except logs.
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
