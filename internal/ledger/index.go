package ledger

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
)

// index holds what tokens have in common, each once, and leads from there to the tokens. A token belongs to
//
//   - a subject: an account, the object that the token is bound to, and a node,
//   - a minter, and
//   - a stamp: a key and a list of audiences.
//
// Each of these has a list of its tokens. It belongs itself to groups, which have lists of their members: a subject to its account and
// its node, a minter to its user and its credential, and a stamp to its key and each of its audiences. So a token is in three
// lists only, and all tokens of a group can be visited. What has no tokens is removed.
type index struct {
	texts  texts
	tokens func(handle uint32) *tokenSlot

	groups        slab[group]
	groupsByName  multimap
	accountsByUID multimap

	subjects       slab[subject]
	subjectsByName multimap
	subjectsByUID  multimap

	minters       slab[minter]
	mintersByHash multimap

	stamps       slab[stamp]
	stampsByHash multimap
	edges        slab[edge]
}

// groupKind says what the members of a group have in common.
type groupKind uint32

const (
	ofAccount    groupKind = iota + 1 // subjects; the texts are namespace, name and UID
	ofNode                            // subjects; name, kind and UID
	ofUser                            // minters; user
	ofCredential                      // minters; credential ID
	ofKey                             // stamps; kid
	ofAudience                        // edges to stamps; audience
)

type groupKey struct {
	kind    groupKind
	a, b, c uint32 // texts
}

type group struct {
	groupKey
	members, memberCount, tokenCount uint32
}

type subjectKey struct {
	account, node uint32 // groups; 0 for no node
	kind, name    uint32 // texts of the object that the token is bound to
	uid           uid
}

type subject struct {
	subjectKey
	tokens, tokenCount uint32
	byAccount, byNode  link
}

type minterKey struct {
	user, credential    uint32 // groups; 0 for the empty string
	uid, address, agent uint32 // texts
}

type minter struct {
	minterKey
	tokens, tokenCount   uint32
	byUser, byCredential link
}

type stampKey struct {
	key       uint32 // a group; 0 for the empty string
	audiences uint32 // a text: the handles of the audiences, which are texts, with four bytes each
}

type stamp struct {
	stampKey
	tokens, tokenCount uint32
	edges              uint32 // the first edge
	byKey              link
}

// edge makes a stamp a member of the group of an audience.
type edge struct {
	stamp, audience uint32
	next            uint32 // the next edge of the stamp
	byAudience      link
}

// uid is a UID: 16 bytes of a UUID, or the handle of another text in the first bytes.
type uid struct {
	bytes  [16]byte
	isText uint32
}

func (x *index) internUID(text string) uid {
	if id, ok := parseUUID(text); ok {
		return uid{bytes: id}
	}
	u := uid{isText: 1}
	binary.LittleEndian.PutUint32(u.bytes[:], x.intern(text))
	return u
}

func (x *index) lookupUID(text string) (uid, bool) {
	if id, ok := parseUUID(text); ok {
		return uid{bytes: id}, true
	}
	u := uid{isText: 1}
	handle, ok := x.texts.lookup(text)
	binary.LittleEndian.PutUint32(u.bytes[:], handle)
	return u, ok
}

func (u *uid) text() uint32 { return binary.LittleEndian.Uint32(u.bytes[:]) }

func (x *index) releaseUID(u *uid) {
	if u.isText == 1 {
		x.texts.release(u.text())
	}
}

func (x *index) intern(text string) uint32 { return x.texts.intern([]byte(text)) }

func hashOf[K comparable](x *index, key K) uint32 {
	return uint32(maphash.Comparable(x.texts.seed, key))
}

// groupHash does not depend on the UID of an account, and of a node only on the name.
func (x *index) groupHash(kind groupKind, a, b uint32) uint32 {
	if kind == ofNode {
		b = 0
	}
	return hashOf(x, groupKey{kind: kind, a: a, b: b})
}

// internGroup returns the group of up to three strings, and makes it if there is none. The caller adds a member or calls dropGroup.
func (x *index) internGroup(kind groupKind, a, b, c string) uint32 {
	key := groupKey{kind, x.intern(a), x.intern(b), x.intern(c)}
	hash := x.groupHash(kind, key.a, key.b)
	handle := x.groupsByName.find(hash, func(handle uint32) bool { return x.groups.at(handle).groupKey == key })
	if handle != 0 {
		x.releaseGroupKey(&key)
		return handle
	}
	handle, g := x.groups.add()
	g.groupKey = key
	x.groupsByName.add(hash, handle)
	if kind == ofAccount {
		x.accountsByUID.add(hashOf(x, key.c), handle)
	}
	return handle
}

func (x *index) releaseGroupKey(key *groupKey) {
	x.texts.release(key.a)
	x.texts.release(key.b)
	x.texts.release(key.c)
}

// dropGroup removes a group if it has no members.
func (x *index) dropGroup(handle uint32) {
	if handle == 0 || x.groups.at(handle).memberCount > 0 {
		return
	}
	key := x.groups.at(handle).groupKey
	x.groupsByName.remove(x.groupHash(key.kind, key.a, key.b), handle)
	if key.kind == ofAccount {
		x.accountsByUID.remove(hashOf(x, key.c), handle)
	}
	x.groups.remove(handle)
	x.releaseGroupKey(&key)
}

// join makes a value a member of a group, which may be 0.
func (x *index) join(group, member uint32, links func(uint32) *link) {
	if group != 0 {
		g := x.groups.at(group)
		g.memberCount++
		insert(&g.members, member, links)
	}
}

// leave ends the membership, and removes the group if it has no members left.
func (x *index) leave(group, member uint32, links func(uint32) *link) {
	if group != 0 {
		g := x.groups.at(group)
		g.memberCount--
		cut(&g.members, member, links)
		x.dropGroup(group)
	}
}

// count adds to the number of tokens of a group, which may be 0.
func (x *index) count(group uint32, n int) {
	if group != 0 {
		x.groups.at(group).tokenCount += uint32(n)
	}
}

func (x *index) subjectByAccount(handle uint32) *link { return &x.subjects.at(handle).byAccount }
func (x *index) subjectByNode(handle uint32) *link    { return &x.subjects.at(handle).byNode }
func (x *index) minterByUser(handle uint32) *link     { return &x.minters.at(handle).byUser }
func (x *index) minterByCredential(handle uint32) *link {
	return &x.minters.at(handle).byCredential
}
func (x *index) stampByKey(handle uint32) *link      { return &x.stamps.at(handle).byKey }
func (x *index) edgeByAudience(handle uint32) *link  { return &x.edges.at(handle).byAudience }
func (x *index) tokenBySubject(handle uint32) *link  { return &x.tokens(handle).bySubject }
func (x *index) tokenByMinter(handle uint32) *link   { return &x.tokens(handle).byMinter }
func (x *index) tokenByStamp(handle uint32) *link    { return &x.tokens(handle).byStamp }
func (x *index) tokenByDeadline(handle uint32) *link { return &x.tokens(handle).byDeadline }

// add puts a token into the lists of what it shares with other tokens.
func (x *index) add(handle uint32, t *Token) {
	slot := x.tokens(handle)
	slot.subject, slot.minter, slot.stamp = x.internSubject(t), x.internMinter(&t.Minter), x.internStamp(t)
	subject, minter, stamp := x.subjects.at(slot.subject), x.minters.at(slot.minter), x.stamps.at(slot.stamp)
	insert(&subject.tokens, handle, x.tokenBySubject)
	insert(&minter.tokens, handle, x.tokenByMinter)
	insert(&stamp.tokens, handle, x.tokenByStamp)
	x.countToken(subject, minter, stamp, 1)
}

// remove takes a token out of the lists, and removes what has no other token.
func (x *index) remove(handle uint32) {
	slot := x.tokens(handle)
	subject, minter, stamp := x.subjects.at(slot.subject), x.minters.at(slot.minter), x.stamps.at(slot.stamp)
	cut(&subject.tokens, handle, x.tokenBySubject)
	cut(&minter.tokens, handle, x.tokenByMinter)
	cut(&stamp.tokens, handle, x.tokenByStamp)
	x.countToken(subject, minter, stamp, -1)
	if subject.tokens == 0 {
		x.removeSubject(slot.subject)
	}
	if minter.tokens == 0 {
		x.removeMinter(slot.minter)
	}
	if stamp.tokens == 0 {
		x.removeStamp(slot.stamp)
	}
}

func (x *index) countToken(subject *subject, minter *minter, stamp *stamp, n int) {
	subject.tokenCount += uint32(n)
	minter.tokenCount += uint32(n)
	stamp.tokenCount += uint32(n)
	for _, group := range [...]uint32{subject.account, subject.node, minter.user, minter.credential, stamp.key} {
		x.count(group, n)
	}
	for e := stamp.edges; e != 0; e = x.edges.at(e).next {
		x.count(x.edges.at(e).audience, n)
	}
}

func (x *index) subjectNameHash(account, name uint32) uint32 {
	return hashOf(x, [2]uint32{x.groups.at(account).a, name})
}

func (x *index) internSubject(t *Token) uint32 {
	key := subjectKey{
		account: x.internGroup(ofAccount, t.Namespace, t.Account, t.AccountUID),
		kind:    x.intern(t.Bound.Kind), name: x.intern(t.Bound.Name), uid: x.internUID(t.Bound.UID),
	}
	// The group of the node of a token that is bound to the node itself has no kind and no UID.
	if t.Node.Name != "" {
		key.node = x.internGroup(ofNode, t.Node.Name, t.Node.Kind, t.Node.UID)
	} else if node := t.node(); node != "" {
		key.node = x.internGroup(ofNode, node, "", "")
	}
	hash := x.subjectHash(&key)
	handle := x.subjectsByUID.find(hash, func(handle uint32) bool { return x.subjects.at(handle).subjectKey == key })
	if handle != 0 {
		x.texts.release(key.kind)
		x.texts.release(key.name)
		x.releaseUID(&key.uid)
		return handle
	}
	handle, s := x.subjects.add()
	s.subjectKey = key
	x.subjectsByUID.add(hash, handle)
	if key.name != 0 {
		x.subjectsByName.add(x.subjectNameHash(key.account, key.name), handle)
	}
	x.join(key.account, handle, x.subjectByAccount)
	x.join(key.node, handle, x.subjectByNode)
	return handle
}

// subjectHash depends only on the UID of the object, if it has one.
func (x *index) subjectHash(key *subjectKey) uint32 {
	if key.uid == (uid{isText: 1}) {
		return hashOf(x, *key)
	}
	return hashOf(x, key.uid)
}

func (x *index) removeSubject(handle uint32) {
	key := x.subjects.at(handle).subjectKey
	x.subjectsByUID.remove(x.subjectHash(&key), handle)
	if key.name != 0 {
		x.subjectsByName.remove(x.subjectNameHash(key.account, key.name), handle)
	}
	x.leave(key.account, handle, x.subjectByAccount)
	x.leave(key.node, handle, x.subjectByNode)
	x.subjects.remove(handle)
	x.texts.release(key.kind)
	x.texts.release(key.name)
	x.releaseUID(&key.uid)
}

func (x *index) internMinter(m *Minter) uint32 {
	key := minterKey{uid: x.intern(m.UID), address: x.intern(m.Address), agent: x.intern(m.UserAgent)}
	if m.User != "" {
		key.user = x.internGroup(ofUser, m.User, "", "")
	}
	if m.Credential != "" {
		key.credential = x.internGroup(ofCredential, m.Credential, "", "")
	}
	hash := hashOf(x, key)
	handle := x.mintersByHash.find(hash, func(handle uint32) bool { return x.minters.at(handle).minterKey == key })
	if handle != 0 {
		x.releaseMinterKey(&key)
		return handle
	}
	handle, entry := x.minters.add()
	entry.minterKey = key
	x.mintersByHash.add(hash, handle)
	x.join(key.user, handle, x.minterByUser)
	x.join(key.credential, handle, x.minterByCredential)
	return handle
}

func (x *index) releaseMinterKey(key *minterKey) {
	x.texts.release(key.uid)
	x.texts.release(key.address)
	x.texts.release(key.agent)
}

func (x *index) removeMinter(handle uint32) {
	key := x.minters.at(handle).minterKey
	x.mintersByHash.remove(hashOf(x, key), handle)
	x.leave(key.user, handle, x.minterByUser)
	x.leave(key.credential, handle, x.minterByCredential)
	x.minters.remove(handle)
	x.releaseMinterKey(&key)
}

func (x *index) internStamp(t *Token) uint32 {
	var key stampKey
	if t.Key != "" {
		key.key = x.internGroup(ofKey, t.Key, "", "")
	}
	var room [64]byte
	list := room[:0]
	for _, audience := range t.Audiences {
		list = binary.LittleEndian.AppendUint32(list, x.intern(audience))
	}
	key.audiences = x.texts.intern(list)
	hash := hashOf(x, key)
	handle := x.stampsByHash.find(hash, func(handle uint32) bool { return x.stamps.at(handle).stampKey == key })
	if handle != 0 {
		x.releaseAudiences(key.audiences)
		return handle
	}
	handle, entry := x.stamps.add()
	entry.stampKey = key
	x.stampsByHash.add(hash, handle)
	x.join(key.key, handle, x.stampByKey)
	for i, audience := range t.Audiences {
		if !slices.Contains(t.Audiences[:i], audience) && audience != "" {
			entry.edges = x.addEdge(handle, x.internGroup(ofAudience, audience, "", ""), entry.edges)
		}
	}
	return handle
}

func (x *index) addEdge(stamp, audience, next uint32) uint32 {
	handle, e := x.edges.add()
	e.stamp, e.audience, e.next = stamp, audience, next
	x.join(audience, handle, x.edgeByAudience)
	return handle
}

// releaseAudiences releases a list of audiences, and its entries.
func (x *index) releaseAudiences(list uint32) {
	for entries := x.texts.bytes(list); len(entries) > 0; entries = entries[4:] {
		x.texts.release(binary.LittleEndian.Uint32(entries))
	}
	x.texts.release(list)
}

func (x *index) removeStamp(handle uint32) {
	key, e := x.stamps.at(handle).stampKey, x.stamps.at(handle).edges
	x.stampsByHash.remove(hashOf(x, key), handle)
	x.leave(key.key, handle, x.stampByKey)
	for e != 0 {
		audience, next := x.edges.at(e).audience, x.edges.at(e).next
		x.leave(audience, e, x.edgeByAudience)
		x.edges.remove(e)
		e = next
	}
	x.stamps.remove(handle)
	x.releaseAudiences(key.audiences)
}
