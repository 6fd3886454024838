package ledger

import (
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// State is what the ledger knows about a credential.
type State int

const (
	// Unknown means that there is no record. A token without a record must be refused.
	Unknown State = iota
	// Live means that there is a record.
	Live
	// Revoked means that the credential was revoked.
	Revoked
)

// Memory is the sum of all batches. It is safe for concurrent use.
type Memory struct {
	clock clock.PassiveClock

	mu           sync.RWMutex
	tokens       map[string]Token
	certificates map[string]Certificate
	revoked      map[string]time.Time // when the credential would have expired
	uses         map[string]Use
	revision     uint64
}

// NewMemory returns an empty memory.
func NewMemory(clock clock.PassiveClock) *Memory {
	return &Memory{
		clock: clock, tokens: map[string]Token{}, certificates: map[string]Certificate{},
		revoked: map[string]time.Time{}, uses: map[string]Use{},
	}
}

// Apply adds a batch that storage holds at a revision.
func (m *Memory) Apply(batch *Batch, revision uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range batch.Revocations {
		m.revoked[r.ID] = r.Expires
		delete(m.tokens, r.ID)
		delete(m.certificates, r.ID)
		delete(m.uses, r.ID)
	}
	for _, token := range batch.Tokens {
		if _, revoked := m.revoked[token.ID]; !revoked && m.clock.Now().Before(token.Expires) {
			m.tokens[token.ID] = token
		}
	}
	for _, certificate := range batch.Certificates {
		if _, revoked := m.revoked[certificate.ID]; !revoked && m.clock.Now().Before(certificate.Expires) {
			m.certificates[certificate.ID] = certificate
		}
	}
	for _, use := range batch.Uses {
		m.used(use)
	}
	m.revision = max(m.revision, revision)
}

// State returns what the ledger knows about the token or certificate with an ID.
func (m *Memory) State(id string) State {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if _, revoked := m.revoked[id]; revoked {
		return Revoked
	}
	if _, ok := m.tokens[id]; ok {
		return Live
	}
	if _, ok := m.certificates[id]; ok {
		return Live
	}
	return Unknown
}

// Token returns the record of a token, and its last use.
func (m *Memory) Token(id string) (token Token, last Use, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	token, ok = m.tokens[id]
	return token, m.uses[id], ok
}

// Certificate returns the record of a certificate, and its last use.
func (m *Memory) Certificate(id string) (certificate Certificate, last Use, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	certificate, ok = m.certificates[id]
	return certificate, m.uses[id], ok
}

// Used notes a use of a credential.
func (m *Memory) Used(use Use) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used(use)
}

func (m *Memory) used(use Use) {
	if use.At.After(m.uses[use.ID].At) {
		m.uses[use.ID] = use
	}
}

// Revision returns the latest revision that was applied.
func (m *Memory) Revision() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.revision
}

// CountByKey returns the number of live tokens that a key signed.
func (m *Memory) CountByKey(kid string) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, now := 0, m.clock.Now()
	for _, token := range m.tokens {
		if token.Key == kid && now.Before(token.Expires) {
			n++
		}
	}
	return n
}
