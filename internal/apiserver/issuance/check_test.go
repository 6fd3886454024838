package issuance

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	testclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/token"
)

// staleFeed is a Feed whose last proof is an hour old.
type staleFeed struct{ Feed }

var errStale = errors.New("stale")

func (staleFeed) Fresh() error            { return errStale }
func (staleFeed) ProofAge() time.Duration { return time.Hour }

// TestStaleMemory checks that a memory that may lack the latest batches accepts no token, and of certificates those that cannot have
// been revoked.
func TestStaleMemory(t *testing.T) {
	t.Parallel()
	now := time.Now()
	clock := testclock.NewFakeClock(now)
	j := New(Config{Feed: staleFeed{}, Memory: ledger.NewMemory(clock), Clock: clock})
	j.Memory.Apply(&ledger.Batch{
		Tokens:       []ledger.Token{{ID: "6f1c7a50-8c1c-4d35-9a0f-7a9fcd1d9b11", Expires: now.Add(time.Hour)}},
		Certificates: []ledger.Certificate{{ID: "recorded", Expires: now.Add(time.Hour)}},
		Revocations:  []ledger.Revocation{{ID: "revoked", Expires: now.Add(time.Hour)}},
	}, 1)
	if err := j.Check(context.Background(), "6f1c7a50-8c1c-4d35-9a0f-7a9fcd1d9b11", &[sha256.Size]byte{}); !errors.Is(err, token.ErrLedgerStale) {
		t.Errorf("a token: %v", err)
	}
	long, lately := now.Add(-24*time.Hour), now.Add(-30*time.Minute)
	for _, tt := range []struct {
		id        string
		notBefore time.Time
		want      error
	}{
		{"recorded", long, errStale}, {"revoked", long, ErrRevoked}, {"of another CA", long, nil},
		{"signed since", lately, errStale}, {"signed since, backdated", now.Add(-time.Hour - time.Minute), errStale},
	} {
		if err := j.CheckCertificate(tt.id, tt.notBefore); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.id, err, tt.want)
		}
	}
}
