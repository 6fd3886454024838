package process

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"
)

// TestHangUp gives a request a new connection where the one before it may be dead, or shows a certificate that has ended.
func TestHangUp(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		limit   time.Duration
		request func(context.Context) error
		want    int
	}{
		"answered":     {time.Minute, func(context.Context) error { return nil }, 0},
		"refused":      {time.Minute, func(context.Context) error { return errors.New("forbidden") }, 0},
		"not answered": {time.Millisecond, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 1},
		"unknown":      {time.Minute, func(context.Context) error { return apierrors.NewUnauthorized("who?") }, 1},
	} {
		hungUp := 0
		s := &supervisor{Config: Config{HangUp: func() { hungUp++ }}}
		_ = s.ask(t.Context(), test.limit, test.request)
		if hungUp != test.want {
			t.Errorf("%s: hung up %d times", name, hungUp)
		}
	}
	if err := (&supervisor{}).ask(t.Context(), time.Second, func(context.Context) error { return apierrors.NewUnauthorized("who?") }); !apierrors.IsUnauthorized(err) {
		t.Errorf("without a way to hang up: %v", err)
	}
}

// TestOneLeaseAtATime keeps a renewal from making a lease shorter that is being made longer.
func TestOneLeaseAtATime(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "1"}}
	client := fake.NewClientset(pod)
	s := &supervisor{
		Config: Config{Lease: time.Minute, Clock: clock.RealClock{}}, pods: client.CoreV1().Pods("ns"), pod: pod, made: time.Now(),
		leasing: semaphore.NewWeighted(1), over: make(chan ending, 1),
	}
	if err := s.leasing.Acquire(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.vouchOnce(ended, pod); !errors.Is(err, context.Canceled) || len(client.Actions()) > 0 {
		t.Errorf("while the lease is held: %v, %v", err, client.Actions())
	}
	s.leasing.Release(1)
	for range 2 {
		if err := s.vouchOnce(t.Context(), pod); err != nil {
			t.Error(err)
		}
	}
	if len(client.Actions()) != 2 {
		t.Errorf("asked for %v", client.Actions())
	}
}
