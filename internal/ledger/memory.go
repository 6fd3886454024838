package ledger

import (
	"cmp"
	"context"
	"slices"
	"strings"
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
	clock   clock.PassiveClock
	history history

	mu           sync.RWMutex
	tokens       map[string]TokenRecord
	certificates map[string]CertificateRecord
	revoked      map[string]time.Time // when the credential would have expired
	uses         map[string]Use
	revision     uint64
}

// NewMemory returns an empty memory.
func NewMemory(clock clock.PassiveClock) *Memory {
	return &Memory{
		clock: clock, tokens: map[string]TokenRecord{}, certificates: map[string]CertificateRecord{},
		revoked: map[string]time.Time{}, uses: map[string]Use{},
	}
}

// Apply adds a batch that storage holds at a revision.
func (m *Memory) Apply(batch *Batch, revision uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	late := revision <= m.revision
	m.revision = max(m.revision, revision)
	now := m.clock.Now()
	var events []Event
	for _, r := range batch.Revocations {
		if !now.Before(r.Expires) {
			continue
		}
		m.revoked[r.ID] = later(r.Expires, m.revoked[r.ID])
		events = append(events, m.remove(r.ID, late)...)
	}
	for _, token := range batch.Tokens {
		_, revoked := m.revoked[token.ID]
		if _, known := m.tokens[token.ID]; revoked || known || !now.Before(token.Expires) {
			continue
		}
		record := TokenRecord{Token: token, LastUse: m.uses[token.ID], Revision: m.revision}
		m.tokens[token.ID] = record
		events = append(events, Event{Type: Added, Revision: m.revision, Token: &record, late: late})
	}
	for _, certificate := range batch.Certificates {
		_, revoked := m.revoked[certificate.ID]
		if _, known := m.certificates[certificate.ID]; revoked || known || !now.Before(certificate.Expires) {
			continue
		}
		record := CertificateRecord{Certificate: certificate, LastUse: m.uses[certificate.ID], Revision: m.revision}
		m.certificates[certificate.ID] = record
		events = append(events, Event{Type: Added, Revision: m.revision, Certificate: &record, late: late})
	}
	for _, use := range batch.Uses {
		m.used(use)
	}
	m.history.add(events)
}

// remove removes the record with an ID, and returns the events.
func (m *Memory) remove(id string, late bool) (events []Event) {
	if token, ok := m.tokens[id]; ok {
		token.LastUse, token.Revision = m.uses[id], m.revision
		events = append(events, Event{Type: Deleted, Revision: m.revision, Token: &token, late: late})
	}
	if certificate, ok := m.certificates[id]; ok {
		certificate.LastUse, certificate.Revision = m.uses[id], m.revision
		events = append(events, Event{Type: Deleted, Revision: m.revision, Certificate: &certificate, late: late})
	}
	delete(m.tokens, id)
	delete(m.certificates, id)
	delete(m.uses, id)
	return events
}

// Synced states that every batch that storage held at a revision was applied. The first call begins the history of events.
func (m *Memory) Synced(revision uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision = max(m.revision, revision)
	m.history.start(m.revision)
}

// Sweep removes the records that have expired, and the revocations that are not needed any more.
func (m *Memory) Sweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock.Now()
	var events []Event
	for id, token := range m.tokens {
		if !now.Before(token.Expires) {
			events = append(events, m.remove(id, true)...)
		}
	}
	for id, certificate := range m.certificates {
		if !now.Before(certificate.Expires) {
			events = append(events, m.remove(id, true)...)
		}
	}
	for id, expires := range m.revoked {
		if !now.Before(expires) {
			delete(m.revoked, id)
		}
	}
	m.history.add(events)
}

// sweepPeriod is the time between two calls of Sweep by Run.
const sweepPeriod = time.Second

// Run calls Sweep once a second until the context ends.
func (m *Memory) Run(ctx context.Context, clock clock.WithTicker) {
	ticker := clock.NewTicker(sweepPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C():
			m.Sweep()
		case <-ctx.Done():
			return
		}
	}
}

// State returns what the ledger knows about the token or certificate with an ID. A record stays until the next Sweep
// after it has expired.
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
	record, ok := m.TokenRecord(id)
	return record.Token, record.LastUse, ok
}

// TokenRecord returns the record of a token.
func (m *Memory) TokenRecord(id string) (record TokenRecord, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	record, ok = m.tokens[id]
	record.LastUse = m.uses[id]
	return record, ok
}

// Certificate returns the record of a certificate, and its last use.
func (m *Memory) Certificate(id string) (certificate Certificate, last Use, ok bool) {
	record, ok := m.CertificateRecord(id)
	return record.Certificate, record.LastUse, ok
}

// CertificateRecord returns the record of a certificate.
func (m *Memory) CertificateRecord(id string) (record CertificateRecord, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	record, ok = m.certificates[id]
	record.LastUse = m.uses[id]
	return record, ok
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

// Select returns the page of tokens that a query selects, in the order of their positions, and whether there are more.
func (m *Memory) Select(q Query) (page []TokenRecord, more bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for id, token := range m.tokens {
		if q.Matches(&token.Token) && q.After.Compare(token.Position()) < 0 {
			token.LastUse = m.uses[id]
			page = append(page, token)
		}
	}
	slices.SortFunc(page, func(a, b TokenRecord) int { return a.Position().Compare(b.Position()) })
	limit := min(len(page), q.limit())
	return page[:limit], limit < len(page)
}

// SelectCertificates returns the page of certificates that a query selects, ordered by ID, and whether there are more.
func (m *Memory) SelectCertificates(q CertificateQuery) (page []CertificateRecord, more bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for id, certificate := range m.certificates {
		if q.Matches(&certificate.Certificate) && strings.Compare(q.After, id) < 0 {
			certificate.LastUse = m.uses[id]
			page = append(page, certificate)
		}
	}
	slices.SortFunc(page, func(a, b CertificateRecord) int { return cmp.Compare(a.ID, b.ID) })
	limit := min(len(page), q.limit())
	return page[:limit], limit < len(page)
}

// Children returns the records of what was issued to requests that were authenticated with a credential, and if
// transitive is set, also of what was issued with those. The argument is a credential ID such as "JTI=...". Tokens come in
// the order of their positions, certificates by ID. A credential in between that was revoked or has expired has no record,
// so what was issued with it is not found.
func (m *Memory) Children(credential string, transitive bool) (tokens []TokenRecord, certificates []CertificateRecord) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	seen := map[string]bool{}
	for parents := []string{credential}; len(parents) > 0; parents = parents[1:] {
		if seen[parents[0]] {
			continue
		}
		seen[parents[0]] = true
		for id, token := range m.tokens {
			if token.Minter.Credential == parents[0] {
				token.LastUse = m.uses[id]
				tokens = append(tokens, token)
				parents = append(parents, token.CredentialID())
			}
		}
		for id, certificate := range m.certificates {
			if certificate.Minter.Credential == parents[0] {
				certificate.LastUse = m.uses[id]
				certificates = append(certificates, certificate)
				parents = append(parents, certificate.CredentialID())
			}
		}
		if !transitive {
			break
		}
	}
	slices.SortFunc(tokens, func(a, b TokenRecord) int { return a.Position().Compare(b.Position()) })
	slices.SortFunc(certificates, func(a, b CertificateRecord) int { return cmp.Compare(a.ID, b.ID) })
	return tokens, certificates
}

// CountByKey returns the number of tokens with a record that a key signed.
func (m *Memory) CountByKey(kid string) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := 0
	for _, token := range m.tokens {
		if token.Key == kid {
			n++
		}
	}
	return n
}
