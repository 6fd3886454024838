// Package controller holds what controllers share: their queue, the change of an object through the API, and their
// events.
//
// Each package below is one controller, or several that belong together. A controller listens to the feeds of the
// objects that it is about, and writes through a client of the API as a user of its own. It does not know the server.
package controller

import (
	"context"
	"errors"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// ErrNotYet marks an error that only means that something else must happen first. It is not logged as a failure.
var ErrNotYet = errors.New("not yet")

// Queue holds the keys of objects that a controller has to look at. A key that fails is tried again, after a delay that
// doubles each time.
type Queue[K comparable] struct {
	workqueue.TypedRateLimitingInterface[K]
	task string
}

// NewQueue returns an empty queue. task names the work in the log, as in "end namespace". The delay before a retry
// grows from first to longest.
func NewQueue[K comparable](task string, first, longest time.Duration, c clock.WithTicker) *Queue[K] {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[K](first, longest)
	return &Queue[K]{
		TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[K]{Clock: c}),
		task:                       task,
	}
}

// Run calls do for each key, one after another, until ctx ends.
func (q *Queue[K]) Run(ctx context.Context, do func(context.Context, K) error) {
	// A worker that waits for a key only returns when the queue is shut down.
	defer context.AfterFunc(ctx, q.ShutDown)()
	defer q.ShutDown()
	for q.next(ctx, do) {
	}
}

// next handles one key and reports whether to go on.
func (q *Queue[K]) next(ctx context.Context, do func(context.Context, K) error) bool {
	key, stopped := q.Get()
	if stopped {
		return false
	}
	defer q.Done(key)
	err := do(ctx, key)
	switch {
	case err == nil:
		q.Forget(key)
		return true
	case ctx.Err() != nil:
		return false
	case errors.Is(err, ErrNotYet):
		klog.V(2).InfoS("Waiting", "task", q.task, "key", key, "reason", err)
	default:
		klog.ErrorS(err, "Controller failed; trying again", "task", q.task, "key", key)
	}
	q.AddRateLimited(key)
	return true
}
