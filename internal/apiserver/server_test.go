package apiserver

import (
	"context"
	"testing"
	"time"

	genericserver "k8s.io/apiserver/pkg/server"
)

// TestStopOfAServerThatHangs stops a server while a request waits for an etcd that hangs. The library alone would wait for such
// requests without a limit.
func TestStopOfAServerThatHangs(t *testing.T) {
	t.Parallel()
	s := &Server{}
	s.handler.server = &genericserver.GenericAPIServer{ShutdownDelayDuration: 10*time.Millisecond - drainTimeout - closeTimeout}
	ctx, cancel := context.WithCancel(t.Context())
	hang := make(chan struct{})
	defer close(hang)
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, func(context.Context) error { <-hang; return nil }) }()
	select {
	case err := <-ended:
		t.Fatalf("ended before its context: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("got %v, want nil", err)
		}
	case <-time.After(time.Minute):
		t.Error("the server does not stop")
	}
}
