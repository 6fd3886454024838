package issuance

import (
	"testing"
	"time"

	"lanyard.dev/internal/ledger"
)

func TestLeaseOf(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for left, want := range map[time.Duration]time.Duration{
		-time.Hour: 15 * time.Minute, 10 * time.Minute: 15 * time.Minute, 3607 * time.Second: 75 * time.Minute,
		24 * time.Hour: 26 * time.Hour, 32 * 24 * time.Hour: 64 * 24 * time.Hour, 365 * 24 * time.Hour: 384 * 24 * time.Hour,
	} {
		b := &ledger.Batch{Tokens: []ledger.Token{{Expires: now.Add(left - time.Minute)}, {Expires: now.Add(left)}}}
		if got := leaseOf(b, now); got != want || got < left {
			t.Errorf("%v left: %v, want %v", left, got, want)
		}
	}
}
