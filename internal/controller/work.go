package controller

import (
	"context"
	"errors"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// ErrNotYet marks an error that says no more than that something else must happen first.
var ErrNotYet = errors.New("not yet")

// Work does each key of the queue until ctx ends, and again as the queue's limiter says while that fails. task names the
// work for the log, as "end namespace". Failures marked with ErrNotYet are not worth a line there.
func Work[K comparable](ctx context.Context, queue workqueue.TypedRateLimitingInterface[K], task string, do func(context.Context, K) error) {
	// The queue waits for keys and must be woken; and it ends with the loop, however that ends.
	defer context.AfterFunc(ctx, queue.ShutDown)()
	defer queue.ShutDown()
	for work(ctx, queue, task, do) {
	}
}

func work[K comparable](ctx context.Context, queue workqueue.TypedRateLimitingInterface[K], task string, do func(context.Context, K) error) bool {
	key, stopped := queue.Get()
	if stopped {
		return false
	}
	defer queue.Done(key)
	err := do(ctx, key)
	switch {
	case err == nil:
		queue.Forget(key)
		return true
	case ctx.Err() != nil:
		return false
	case errors.Is(err, ErrNotYet):
		klog.V(2).InfoS("Waiting", "task", task, "key", key, "reason", err)
	default:
		klog.ErrorS(err, "Controller failed; trying again", "task", task, "key", key)
	}
	queue.AddRateLimited(key)
	return true
}
