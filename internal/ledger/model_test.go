package ledger

import (
	"slices"
	"strings"
	"time"
)

// model is Memory in its simplest form: maps that are scanned. Tests compare Memory with it.
type model struct {
	now          time.Time
	tokens       map[string]TokenRecord
	certificates map[string]CertificateRecord
	revoked      map[string]time.Time
	uses         map[string]Use
	revision     uint64
	events       []Event
}

func newModel(now time.Time) *model {
	return &model{
		now: now, tokens: map[string]TokenRecord{}, certificates: map[string]CertificateRecord{},
		revoked: map[string]time.Time{}, uses: map[string]Use{},
	}
}

func (m *model) apply(batch *Batch, revision uint64) {
	m.revision = max(m.revision, revision)
	for _, r := range batch.Revocations {
		if m.now.Before(r.Expires) {
			expires := later(later(r.Expires, m.revoked[r.ID]), later(m.tokens[r.ID].Expires, m.certificates[r.ID].Expires))
			m.remove(r.ID)
			m.revoked[r.ID] = expires
		}
	}
	for _, token := range batch.Tokens {
		if _, known := m.tokens[token.ID]; !known && m.accepts(token.ID, token.Expires) {
			m.tokens[token.ID] = TokenRecord{Token: token, Revision: m.revision}
			record := m.token(token.ID)
			m.events = append(m.events, Event{Type: Added, Revision: m.revision, Token: &record})
		}
	}
	for _, certificate := range batch.Certificates {
		if _, known := m.certificates[certificate.ID]; !known && m.accepts(certificate.ID, certificate.Expires) {
			m.certificates[certificate.ID] = CertificateRecord{Certificate: certificate, Revision: m.revision}
			record := m.certificate(certificate.ID)
			m.events = append(m.events, Event{Type: Added, Revision: m.revision, Certificate: &record})
		}
	}
	for _, use := range batch.Uses {
		m.used(use)
	}
}

func (m *model) accepts(id string, expires time.Time) bool {
	_, revoked := m.revoked[id]
	return !revoked && m.now.Before(expires)
}

func (m *model) token(id string) TokenRecord {
	record := m.tokens[id]
	record.LastUse = m.uses[id]
	return record
}

func (m *model) certificate(id string) CertificateRecord {
	record := m.certificates[id]
	record.LastUse = m.uses[id]
	return record
}

func (m *model) remove(id string) {
	if token, ok := m.tokens[id]; ok {
		token.LastUse, token.Revision = m.uses[id], m.revision
		m.events = append(m.events, Event{Type: Deleted, Revision: m.revision, Token: &token})
	}
	if certificate, ok := m.certificates[id]; ok {
		certificate.LastUse, certificate.Revision = m.uses[id], m.revision
		m.events = append(m.events, Event{Type: Deleted, Revision: m.revision, Certificate: &certificate})
	}
	delete(m.tokens, id)
	delete(m.certificates, id)
	delete(m.uses, id)
}

func (m *model) used(use Use) {
	if _, revoked := m.revoked[use.ID]; revoked {
		return
	}
	old := m.uses[use.ID]
	if use.At.After(old.At) || use.At.Equal(old.At) && use.Address > old.Address {
		m.uses[use.ID] = use
	}
}

func (m *model) sweep() {
	for id, token := range m.tokens {
		if !m.now.Before(token.Expires) {
			m.remove(id)
		}
	}
	for id, certificate := range m.certificates {
		if !m.now.Before(certificate.Expires) {
			m.remove(id)
		}
	}
	for id, expires := range m.revoked {
		if !m.now.Before(expires) {
			delete(m.revoked, id)
		}
	}
}

func (m *model) state(id string) State {
	_, token := m.tokens[id]
	_, certificate := m.certificates[id]
	if _, revoked := m.revoked[id]; revoked {
		return Revoked
	} else if token || certificate {
		return Live
	}
	return Unknown
}

func (m *model) selectTokens(q Query) (page []TokenRecord, more bool) {
	for id := range m.tokens {
		if record := m.token(id); q.Matches(&record.Token) && q.After.Compare(record.Position()) < 0 {
			page = append(page, record)
		}
	}
	sortTokens(page)
	limit := min(len(page), q.limit())
	return page[:limit], limit < len(page)
}

func (m *model) selectCertificates(q CertificateQuery) (page []CertificateRecord, more bool) {
	for id := range m.certificates {
		if record := m.certificate(id); q.Matches(&record.Certificate) && q.After < id {
			page = append(page, record)
		}
	}
	sortCertificates(page)
	limit := min(len(page), q.limit())
	return page[:limit], limit < len(page)
}

func (m *model) children(credential string, transitive bool) (tokens []TokenRecord, certificates []CertificateRecord) {
	ancestors := map[string]bool{credential: true}
	for grown := true; grown; {
		grown = false
		tokens, certificates = nil, nil
		for id := range m.tokens {
			if record := m.token(id); ancestors[record.Minter.Credential] {
				tokens = append(tokens, record)
			}
		}
		for id := range m.certificates {
			if record := m.certificate(id); ancestors[record.Minter.Credential] {
				certificates = append(certificates, record)
			}
		}
		before := len(ancestors)
		for i := range tokens {
			ancestors[tokens[i].CredentialID()] = true
		}
		for i := range certificates {
			ancestors[certificates[i].CredentialID()] = true
		}
		grown = transitive && len(ancestors) > before
	}
	sortTokens(tokens)
	sortCertificates(certificates)
	return tokens, certificates
}

func (m *model) countByKey(kid string) (n int) {
	for _, token := range m.tokens {
		if token.Key == kid {
			n++
		}
	}
	return n
}

func sortTokens(page []TokenRecord) {
	slices.SortFunc(page, func(a, b TokenRecord) int { return a.Position().Compare(b.Position()) })
}

func sortCertificates(page []CertificateRecord) {
	slices.SortFunc(page, func(a, b CertificateRecord) int { return strings.Compare(a.ID, b.ID) })
}
