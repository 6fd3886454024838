package ledger

import "encoding/binary"

// reader makes records of slots. It keeps the strings that it made, because most records have many in common. Its user has the
// lock of memory.
type reader struct {
	*Memory
	strings map[uint32]string
}

func (m *Memory) newReader() *reader { return &reader{Memory: m, strings: map[uint32]string{}} }

func (r *reader) text(handle uint32) string {
	if handle == 0 {
		return ""
	}
	text, ok := r.strings[handle]
	if !ok {
		text = string(r.index.texts.bytes(handle))
		r.strings[handle] = text
	}
	return text
}

func (r *reader) uid(u *uid) string {
	if u.isText == 1 {
		return r.text(u.text())
	}
	return formatUUID(u.bytes[:])
}

// group returns the first string of a group, which may be 0.
func (r *reader) group(handle uint32) string {
	if handle == 0 {
		return ""
	}
	return r.text(r.index.groups.at(handle).a)
}

// token returns the record of a token.
func (r *reader) token(handle uint32) TokenRecord {
	slot, x := r.slot(handle), &r.index
	key := r.key(handle)
	t := TokenRecord{Revision: slot.at()}
	t.ID, t.Issued, t.Expires = key.String(), fromInstant(slot.issued), fromInstant(slot.expires)
	t.Digest = slot.digest
	t.LastUse = r.useOf(handle).of(t.ID)

	subject := x.subjects.at(slot.subject)
	account := x.groups.at(subject.account)
	t.Namespace, t.Account, t.AccountUID = r.text(account.a), r.text(account.b), r.text(account.c)
	t.Bound = Object{Kind: r.text(subject.kind), Name: string(x.appendName(nil, &subject.name)), UID: r.uid(&subject.uid)}
	if subject.node != 0 {
		node := x.groups.at(subject.node)
		t.Node = Object{Kind: r.text(node.b), Name: r.text(node.a), UID: r.text(node.c)}
		if t.Bound.Kind == nodeKind && t.Node == (Object{Name: t.Bound.Name}) {
			t.Node = Object{} // It is the node that the token is bound to.
		}
	}

	minter := x.minters.at(slot.minter)
	t.Minter = Minter{
		User: r.group(minter.user), UID: r.text(minter.uid), Credential: r.group(minter.credential),
		Address: r.text(minter.address), UserAgent: r.text(minter.agent),
	}

	stamp := x.stamps.at(slot.stamp)
	t.Key = r.group(stamp.key)
	for list := x.texts.bytes(stamp.audiences); len(list) > 0; list = list[4:] {
		t.Audiences = append(t.Audiences, r.text(binary.LittleEndian.Uint32(list)))
	}
	return t
}

// find returns the handle of the token with an ID, or 0. The caller has the lock of memory.
func (m *Memory) find(id string) uint32 {
	uuid, ok := parseUUID(id)
	if !ok {
		m.plain.mu.RLock()
		defer m.plain.mu.RUnlock()
		return m.plain.tokens[id]
	}
	number, hash := m.place(&uuid)
	s := &m.shards[number]
	s.mu.RLock()
	defer s.mu.RUnlock()
	if slot := s.find(hash, &uuid); slot != 0 {
		return slot<<shardBits | number
	}
	return 0
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
	handle := m.find(id)
	if handle == 0 {
		return TokenRecord{}, false
	}
	return m.newReader().token(handle), true
}

// Certificate returns the record of a certificate, and its last use.
func (m *Memory) Certificate(id string) (certificate Certificate, last Use, ok bool) {
	record, ok := m.CertificateRecord(id)
	return record.Certificate, record.LastUse, ok
}

// CertificateRecord returns the record of a certificate.
func (m *Memory) CertificateRecord(id string) (record CertificateRecord, ok bool) {
	m.plain.mu.RLock()
	defer m.plain.mu.RUnlock()
	found := m.plain.certificates[id]
	if found == nil {
		return CertificateRecord{}, false
	}
	record = *found
	record.LastUse = m.plain.use(id)
	return record, true
}

// CountByKey returns the number of tokens with a record that a key signed.
func (m *Memory) CountByKey(kid string) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if group := m.index.lookupGroup(ofKey, kid); group != 0 {
		return int(m.index.groups.at(group).tokenCount)
	}
	return 0
}
