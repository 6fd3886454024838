package ledger

import (
	"encoding/binary"
	"slices"
)

// minter is who requested tokens.
type minter struct {
	user, credential     uint32 // groups; 0 for the empty string
	uid, address, agent  uint32 // texts
	tokens               uint32
	byUser, byCredential link
}

func (x *index) minterByUser(handle uint32) *link       { return &x.minters.at(handle).byUser }
func (x *index) minterByCredential(handle uint32) *link { return &x.minters.at(handle).byCredential }

func (x *index) internMinter(m *Minter) uint32 {
	hash := combine(x.hashString(m.User), x.hashString(m.UID), x.hashString(m.Credential), x.hashString(m.Address), x.hashString(m.UserAgent))
	if handle := x.mintersByHash.find(hash, func(handle uint32) bool { return x.isMinter(x.minters.at(handle), m) }); handle != 0 {
		return handle
	}
	handle, entry := x.minters.add()
	entry.user, entry.credential = x.internGroupUnlessEmpty(ofUser, m.User), x.internGroupUnlessEmpty(ofCredential, m.Credential)
	entry.uid, entry.address, entry.agent = x.intern(m.UID), x.intern(m.Address), x.intern(m.UserAgent)
	x.mintersByHash.add(hash, handle)
	x.join(entry.user, handle, x.minterByUser)
	x.join(entry.credential, handle, x.minterByCredential)
	return handle
}

func (x *index) isMinter(entry *minter, m *Minter) bool {
	return x.isGroup(entry.user, m.User) && x.isGroup(entry.credential, m.Credential) &&
		x.is(entry.uid, m.UID) && x.is(entry.address, m.Address) && x.is(entry.agent, m.UserAgent)
}

func (x *index) removeMinter(handle uint32) {
	m := *x.minters.at(handle)
	hash := combine(x.hashGroup(m.user), x.hashText(m.uid), x.hashGroup(m.credential), x.hashText(m.address), x.hashText(m.agent))
	x.mintersByHash.remove(hash, handle)
	x.leave(m.user, handle, x.minterByUser)
	x.leave(m.credential, handle, x.minterByCredential)
	x.minters.remove(handle)
	x.texts.release(m.uid)
	x.texts.release(m.address)
	x.texts.release(m.agent)
}

// stamp is what the authority decided about tokens: their key and their audiences.
type stamp struct {
	key       uint32 // a group; 0 for the empty string
	audiences uint32 // a text: the handles of the audiences, which are texts, with four bytes each
	tokens    uint32
	edges     uint32 // the first edge
	byKey     link
}

// edge makes a stamp a member of the group of an audience.
type edge struct {
	stamp, audience uint32
	next            uint32 // the next edge of the stamp
	byAudience      link
}

func (x *index) stampByKey(handle uint32) *link     { return &x.stamps.at(handle).byKey }
func (x *index) edgeByAudience(handle uint32) *link { return &x.edges.at(handle).byAudience }

func (x *index) internStamp(t *Token) uint32 {
	hash := combine(x.hashString(t.Key))
	for _, audience := range t.Audiences {
		hash = combine(uint64(hash), x.hashString(audience))
	}
	if handle := x.stampsByHash.find(hash, func(handle uint32) bool { return x.isStamp(x.stamps.at(handle), t) }); handle != 0 {
		return handle
	}
	handle, entry := x.stamps.add()
	entry.key = x.internGroupUnlessEmpty(ofKey, t.Key)
	var list []byte
	for i, audience := range t.Audiences {
		list = binary.LittleEndian.AppendUint32(list, x.intern(audience))
		if audience != "" && !slices.Contains(t.Audiences[:i], audience) {
			entry.edges = x.addEdge(handle, x.internGroup(ofAudience, audience, "", ""), entry.edges)
		}
	}
	entry.audiences = x.texts.intern(list)
	x.stampsByHash.add(hash, handle)
	x.join(entry.key, handle, x.stampByKey)
	return handle
}

func (x *index) addEdge(stamp, audience, next uint32) uint32 {
	handle, e := x.edges.add()
	e.stamp, e.audience, e.next = stamp, audience, next
	x.join(audience, handle, x.edgeByAudience)
	return handle
}

func (x *index) isStamp(s *stamp, t *Token) bool {
	list := x.texts.bytes(s.audiences)
	if len(list) != 4*len(t.Audiences) || !x.isGroup(s.key, t.Key) {
		return false
	}
	for i, audience := range t.Audiences {
		if !x.is(binary.LittleEndian.Uint32(list[4*i:]), audience) {
			return false
		}
	}
	return true
}

func (x *index) removeStamp(handle uint32) {
	s := *x.stamps.at(handle)
	hash := combine(x.hashGroup(s.key))
	for list := x.texts.bytes(s.audiences); len(list) > 0; list = list[4:] {
		hash = combine(uint64(hash), x.hashText(binary.LittleEndian.Uint32(list)))
	}
	x.stampsByHash.remove(hash, handle)
	x.leave(s.key, handle, x.stampByKey)
	for e := s.edges; e != 0; {
		audience, next := x.edges.at(e).audience, x.edges.at(e).next
		x.leave(audience, e, x.edgeByAudience)
		x.edges.remove(e)
		e = next
	}
	for list := x.texts.bytes(s.audiences); len(list) > 0; list = list[4:] {
		x.texts.release(binary.LittleEndian.Uint32(list))
	}
	x.texts.release(s.audiences)
	x.stamps.remove(handle)
}

func (x *index) hasAudience(stamp *stamp, audience uint32) bool {
	for e := stamp.edges; e != 0; e = x.edges.at(e).next {
		if x.edges.at(e).audience == audience {
			return true
		}
	}
	return false
}
