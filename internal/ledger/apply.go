package ledger

import "github.com/google/uuid"

// application changes memory, whose lock it has, and collects the events.
type application struct {
	*Memory
	late   bool
	now    uint32
	events []Event
}

func (a *application) event(kind EventType, token *TokenRecord, certificate *CertificateRecord) {
	a.events = append(a.events, Event{Type: kind, Revision: a.revision, Token: token, Certificate: certificate, late: a.late})
}

func (a *application) revoke(r *Revocation) {
	expires := instant(r.Expires)
	if expires <= a.now {
		return
	}
	id, ok := parseUUID(r.ID)
	if !ok {
		a.revokePlain(r.ID, expires)
		return
	}
	number, hash := a.place(&id)
	if local := a.shards[number].revoke(hash, &id, expires); local != 0 {
		a.removeToken(local<<shardBits | number)
	}
}

// revoke notes a revocation, and returns the slot of the token.
func (s *shard) revoke(hash uint32, id *uuid.UUID, expires uint32) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.find(hash, id)
	if slot != 0 {
		// A revocation that ends too early would let the record come back.
		expires = max(expires, s.slots.at(slot).expires)
	}
	s.revoked[*id] = max(expires, s.revoked[*id])
	s.early.take(*id)
	return slot
}

func (s *shard) sweep(now uint32, age bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, expires := range s.revoked {
		if expires <= now {
			delete(s.revoked, id)
		}
	}
	if age {
		s.early.age()
	}
}

func (a *application) addToken(t *Token) {
	if t.ID == "" || instant(t.Expires) <= a.now {
		return
	}
	var handle uint32
	if id, ok := parseUUID(t.ID); ok {
		number, hash := a.place(&id)
		if local := a.shards[number].addToken(hash, &id, &t.Digest); local != 0 {
			handle = local<<shardBits | number
		}
	} else {
		handle = a.addPlainToken(t.ID, &t.Digest)
	}
	if handle == 0 {
		return
	}
	slot := a.slot(handle)
	slot.issued, slot.expires = instant(t.Issued), instant(t.Expires)
	slot.setRevision(a.revision)
	a.index.add(handle, t)
	a.deadlines.insert(&a.index, handle, slot.expires)
	namespace := a.namespaces.add(&a.index, t.Namespace, a.namespaceOf(handle))
	a.orders.insert(&namespace.order, handle)
	a.tokens++
	if a.synced {
		record := TokenRecord{Token: *t, LastUse: a.useOf(handle).of(t.ID), Revision: a.revision}
		a.event(Added, &record, nil)
	}
}

// addToken makes a token known by its ID. It returns 0 if the token is known already or was revoked.
func (s *shard) addToken(hash uint32, id *uuid.UUID, digest *Digest) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, revoked := s.revoked[*id]; revoked || s.find(hash, id) != 0 {
		return 0
	}
	local, slot := s.slots.add()
	slot.id, slot.digest, slot.use = *id, *digest, s.early.take(*id)
	s.byID.add(hash, local)
	return local
}

// removeToken removes a token that was revoked or has expired.
func (a *application) removeToken(handle uint32) {
	if a.synced {
		record := a.newReader().token(handle)
		record.Revision = a.revision
		a.event(Deleted, &record, nil)
	}
	slot := a.slot(handle)
	a.removeFromNamespace(a.namespaceOf(handle), handle)
	a.deadlines.cut(&a.index, handle, slot.expires)
	a.index.remove(handle)
	a.tokens--
	s := &a.shards[handle%shards]
	if slot.hasTextID() {
		a.plain.removeToken(a.textIDs[handle])
		delete(a.textIDs, handle)
		s.mu.Lock()
		defer s.mu.Unlock()
	} else {
		_, hash := a.place(&slot.id)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.byID.remove(hash, handle>>shardBits)
	}
	s.slots.remove(handle >> shardBits)
}

// useOf returns the last use of a token.
func (m *Memory) useOf(handle uint32) *use {
	s := &m.shards[handle%shards]
	s.mu.RLock()
	defer s.mu.RUnlock()
	use := s.slots.at(handle >> shardBits).use
	return &use
}
