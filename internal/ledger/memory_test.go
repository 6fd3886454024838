package ledger

import (
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// TestRevocationIsFinal applies a record and its revocation in both orders, and each twice.
func TestRevocationIsFinal(t *testing.T) {
	t.Parallel()
	now := time.Now()
	record := &Batch{Tokens: []Token{{ID: "a", Expires: now.Add(time.Hour)}}}
	revocation := &Batch{Revocations: []Revocation{{ID: "a", Expires: now.Add(time.Hour)}}}
	for _, order := range [][]*Batch{{record, revocation}, {revocation, record}, {record, revocation, record}, {revocation, record, revocation}} {
		m := NewMemory(clocktesting.NewFakePassiveClock(now))
		for i, batch := range order {
			m.Apply(batch, uint64(i+1))
		}
		if got := m.State("a"); got != Revoked {
			t.Errorf("state %v, want %v", got, Revoked)
		}
		if _, _, ok := m.Token("a"); ok {
			t.Error("a revoked token has a record")
		}
		if m.Revision() != uint64(len(order)) {
			t.Errorf("revision %d, want %d", m.Revision(), len(order))
		}
	}
}
