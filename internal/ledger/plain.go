package ledger

import (
	"hash/maphash"
	"sync"
)

// plain has what is not found by a UUID, which is little: certificates, and tokens of other issuers. Its maps are ordinary ones.
type plain struct {
	mu           sync.RWMutex
	certificates map[string]*CertificateRecord // without the last use
	uses         map[string]use                // of certificates
	tokens       map[string]uint32             // handles
	revoked      map[string]uint32             // when the credential would have expired
	early        early[string]
}

func newPlain() plain {
	return plain{
		certificates: map[string]*CertificateRecord{}, uses: map[string]use{}, tokens: map[string]uint32{}, revoked: map[string]uint32{},
	}
}

func (p *plain) state(id string) State {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if _, ok := p.revoked[id]; ok {
		return Revoked
	}
	if p.known(id) {
		return Live
	}
	return Unknown
}

func (p *plain) known(id string) bool {
	_, token := p.tokens[id]
	return token || p.certificates[id] != nil
}

func (m *Memory) usedPlain(id string, u use, keep bool) {
	p := &m.plain
	p.mu.Lock()
	defer p.mu.Unlock()
	if handle, ok := p.tokens[id]; ok {
		s := &m.shards[handle%shards]
		s.mu.Lock()
		if old := &s.slots.at(handle >> shardBits).use; u.newer(old) {
			*old = u
		}
		s.mu.Unlock()
	}
	if p.certificates[id] != nil {
		if old := p.uses[id]; u.newer(&old) {
			p.uses[id] = u
		}
	}
	if _, revoked := p.revoked[id]; keep && !revoked && !p.known(id) {
		p.early.note(id, u)
	}
}

func (a *application) revokePlain(id string, expires uint32) {
	p := &a.plain
	p.mu.Lock()
	handle, certificate := p.tokens[id], p.certificates[id]
	if handle != 0 {
		expires = max(expires, a.slot(handle).expires)
	}
	if certificate != nil {
		expires = max(expires, instant(certificate.Expires))
	}
	p.revoked[id] = max(expires, p.revoked[id])
	p.early.take(id)
	p.mu.Unlock()
	if handle != 0 {
		a.removeToken(handle)
	}
	if certificate != nil {
		a.removeCertificate(certificate)
	}
}

// addPlainToken makes a token known by an ID that is not a UUID. It returns 0 if the token is known already or was revoked.
func (a *application) addPlainToken(id string, digest *Digest) uint32 {
	p := &a.plain
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, revoked := p.revoked[id]; revoked || p.tokens[id] != 0 {
		return 0
	}
	number := uint32(maphash.String(a.seed, id) % shards)
	s := &a.shards[number]
	s.mu.Lock()
	defer s.mu.Unlock()
	local, slot := s.slots.add()
	slot.revision[0], slot.digest, slot.use = hasTextID, *digest, p.early.take(id)
	handle := local<<shardBits | number
	p.tokens[id], a.textIDs[handle] = handle, id
	return handle
}

func (p *plain) removeToken(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tokens, id)
}

// addCertificate adds a certificate. It ignores one whose ID is a UUID, which no digest is.
func (a *application) addCertificate(c *Certificate) {
	if _, ok := parseUUID(c.ID); ok || instant(c.Expires) <= a.now {
		return
	}
	p := &a.plain
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, revoked := p.revoked[c.ID]; revoked || p.certificates[c.ID] != nil {
		return
	}
	record := CertificateRecord{Certificate: *c, Revision: a.revision}
	p.certificates[c.ID] = &record
	if use := p.early.take(c.ID); use.at != 0 {
		p.uses[c.ID] = use
	}
	if a.synced {
		added := record
		added.LastUse = p.use(c.ID)
		a.event(Added, nil, &added)
	}
}

// use returns the last use of a certificate.
func (p *plain) use(id string) Use {
	use := p.uses[id]
	return use.of(id)
}

func (a *application) removeCertificate(c *CertificateRecord) {
	p := &a.plain
	p.mu.Lock()
	defer p.mu.Unlock()
	record := CertificateRecord{Certificate: c.Certificate, LastUse: p.use(c.ID), Revision: a.revision}
	delete(p.certificates, c.ID)
	delete(p.uses, c.ID)
	if a.synced {
		a.event(Deleted, nil, &record)
	}
}

func (a *application) sweepCertificates() {
	var expired []*CertificateRecord
	a.plain.mu.RLock()
	for _, c := range a.plain.certificates {
		if instant(c.Expires) <= a.now {
			expired = append(expired, c)
		}
	}
	a.plain.mu.RUnlock()
	for _, c := range expired {
		a.removeCertificate(c)
	}
}

func (p *plain) sweep(now uint32, age bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, expires := range p.revoked {
		if expires <= now {
			delete(p.revoked, id)
		}
	}
	if age {
		p.early.age()
	}
}
