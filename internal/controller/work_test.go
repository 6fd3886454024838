package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/client-go/util/workqueue"
)

func TestWorkTriesAgainUntilItIsDone(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](time.Millisecond, time.Millisecond)
	queue := workqueue.NewTypedRateLimitingQueue[string](limiter)
	queue.Add("a")
	faults := []error{errors.New("broken"), ErrNotYet, nil}
	tries := 0
	Work(ctx, queue, "test", func(_ context.Context, key string) error {
		fault := faults[tries]
		if tries++; tries == len(faults) {
			stop()
		}
		return fault
	})
	if tries != len(faults) || queue.NumRequeues("a") != 0 {
		t.Errorf("tried %d times, %d failures remembered", tries, queue.NumRequeues("a"))
	}
}

func TestWorkEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	queue.Add("a")
	Work(ctx, queue, "test", func(context.Context, string) error {
		stop()
		return context.Canceled
	})
	if !queue.ShuttingDown() || queue.NumRequeues("a") != 0 {
		t.Errorf("shutting down %v, %d failures remembered", queue.ShuttingDown(), queue.NumRequeues("a"))
	}
}
