package tokenvolume

import (
	"testing"
	"time"
)

func TestRenewAt(t *testing.T) {
	t.Parallel()
	issued := time.Date(2026, 11, 5, 10, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		lifetime time.Duration
		jitter   float64
		want     time.Duration
	}{
		{time.Hour, 0, 48 * time.Minute},
		{time.Hour, 1, 36 * time.Minute},
		{time.Hour, 0.5, 42 * time.Minute},
		{time.Hour, -3, 48 * time.Minute},
		{time.Hour, 7, 36 * time.Minute},
		{10 * time.Minute, 0, 8 * time.Minute},
		{30 * time.Hour, 0, 24 * time.Hour},
		{365 * 24 * time.Hour, 0, 24 * time.Hour},
		{365 * 24 * time.Hour, 1, 18 * time.Hour},
		{1 << 62, 0, 24 * time.Hour},
		{0, 1, 0},
		{-time.Hour, 1, 0},
	} {
		if got := RenewAt(issued, issued.Add(test.lifetime), test.jitter).Sub(issued); got != test.want {
			t.Errorf("a life of %v with jitter %v: renewed after %v, want %v", test.lifetime, test.jitter, got, test.want)
		}
	}
}
