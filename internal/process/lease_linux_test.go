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

// TestConnectionsAreClosed checks after which failures the next request gets a new connection: when the connection may be dead,
// and when it may present an expired certificate.
func TestConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		limit   time.Duration
		request func(context.Context) error
		want    int
	}{
		"answered":     {time.Minute, func(context.Context) error { return nil }, 0},
		"refused":      {time.Minute, func(context.Context) error { return errors.New("forbidden") }, 0},
		"not answered": {time.Millisecond, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 1},
		"unauthorized": {time.Minute, func(context.Context) error { return apierrors.NewUnauthorized("expired") }, 1},
	} {
		closed := 0
		s := &supervisor{Config: Config{CloseConnections: func() { closed++ }}}
		_ = s.request(t.Context(), test.limit, test.request)
		if closed != test.want {
			t.Errorf("%s: closed %d times, want %d", name, closed, test.want)
		}
	}
	if err := (&supervisor{}).request(t.Context(), time.Second, func(context.Context) error { return apierrors.NewUnauthorized("expired") }); !apierrors.IsUnauthorized(err) {
		t.Errorf("without CloseConnections: %v", err)
	}
}

// TestLeaseLock checks that a renewal waits for the lock, so that it does not shorten a lease that a suspension has extended.
func TestLeaseLock(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "1"}}
	client := fake.NewClientset(pod)
	s := &supervisor{
		Config: Config{Lease: time.Minute, Clock: clock.RealClock{}}, pods: client.CoreV1().Pods("ns"), pod: pod, podCreated: time.Now(),
		leaseLock: semaphore.NewWeighted(1), terminations: make(chan termination, 1),
	}
	if err := s.leaseLock.Acquire(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.renewLease(ended, pod); !errors.Is(err, context.Canceled) || len(client.Actions()) > 0 {
		t.Errorf("while the lease is held: %v, %v", err, client.Actions())
	}
	s.leaseLock.Release(1)
	for range 2 {
		if err := s.renewLease(t.Context(), pod); err != nil {
			t.Error(err)
		}
	}
	if len(client.Actions()) != 2 {
		t.Errorf("got requests %v", client.Actions())
	}
}
