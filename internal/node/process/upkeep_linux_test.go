package process

import (
	"context"
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
