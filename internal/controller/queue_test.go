package controller_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
)

func TestQueueTriesAgain(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	queue := controller.NewQueue[string]("test", time.Millisecond, time.Millisecond, clock.RealClock{})
	queue.Add("a")
	faults := []error{errors.New("broken"), controller.ErrNotYet, nil}
	tries := 0
	queue.Run(ctx, func(_ context.Context, key string) error {
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

func TestQueueEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	queue := controller.NewQueue[string]("test", time.Millisecond, time.Millisecond, clock.RealClock{})
	queue.Add("a")
	queue.Run(ctx, func(context.Context, string) error {
		stop()
		return context.Canceled
	})
	if !queue.ShuttingDown() || queue.NumRequeues("a") != 0 {
		t.Errorf("shutting down %v, %d failures remembered", queue.ShuttingDown(), queue.NumRequeues("a"))
	}
}
