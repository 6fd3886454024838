package ledger

import (
	"hash/maphash"
	"math/bits"
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
//
// All are found by hashes of their strings, so that a token that shares them changes no count of references.
type index struct {
	texts  texts
	tokens func(handle uint32) *tokenSlot

	groups        slab[group]
	groupsByName  multimap // by kind and strings, see nameHash
	accountsByUID multimap

	subjects       slab[subject]
	subjectsByName multimap // by namespace and name of the object, if there is one
	subjectsByUID  multimap // by UID of the object, see subjectHash

	minters       slab[minter]
	mintersByHash multimap

	stamps       slab[stamp]
	stampsByHash multimap
	edges        slab[edge]
}

// groupKind says what the members of a group have in common.
type groupKind uint32

const (
	ofAccount    groupKind = iota + 1 // subjects; the strings are namespace, name and UID
	ofNode                            // subjects; name, kind and UID
	ofUser                            // minters; user
	ofCredential                      // minters; credential ID
	ofKey                             // stamps; kid
	ofAudience                        // edges to stamps; audience
)

type group struct {
	kind                             groupKind
	a, b, c                          uint32 // texts
	members, memberCount, tokenCount uint32
}

func (x *index) intern(text string) uint32 { return x.texts.intern([]byte(text)) }

// is reports whether a text is a string.
func (x *index) is(handle uint32, text string) bool { return string(x.texts.bytes(handle)) == text }

// hashString and hashText return the same for the same string.
func (x *index) hashString(text string) uint64 { return maphash.String(x.texts.seed, text) }
func (x *index) hashText(handle uint32) uint64 {
	return maphash.Bytes(x.texts.seed, x.texts.bytes(handle))
}

// combine makes one hash of several.
func combine(hashes ...uint64) uint32 {
	var sum uint64
	for _, hash := range hashes {
		sum = (bits.RotateLeft64(sum, 29) ^ hash) * 0x9e3779b97f4a7c15
	}
	return uint32(sum >> 32)
}

// nameHash returns the hash of a group. It does not depend on the UID of an account, and of a node only on the name.
func nameHash(kind groupKind, a, b uint64) uint32 {
	if kind == ofNode {
		b = 0
	}
	return combine(uint64(kind), a, b)
}

// internGroup returns the group of up to three strings, and makes it if there is none. A new group has no members yet.
func (x *index) internGroup(kind groupKind, a, b, c string) uint32 {
	hash := nameHash(kind, x.hashString(a), x.hashString(b))
	if handle := x.findGroup(hash, kind, a, b, c); handle != 0 {
		return handle
	}
	handle, g := x.groups.add()
	g.kind, g.a, g.b, g.c = kind, x.intern(a), x.intern(b), x.intern(c)
	x.groupsByName.add(hash, handle)
	if kind == ofAccount {
		x.accountsByUID.add(uint32(x.hashString(c)), handle)
	}
	return handle
}

func (x *index) findGroup(hash uint32, kind groupKind, a, b, c string) uint32 {
	return x.groupsByName.find(hash, func(handle uint32) bool {
		g := x.groups.at(handle)
		return g.kind == kind && x.is(g.a, a) && x.is(g.b, b) && x.is(g.c, c)
	})
}

// lookupGroup returns the group with one string, or 0.
func (x *index) lookupGroup(kind groupKind, name string) uint32 {
	return x.findGroup(nameHash(kind, x.hashString(name), x.hashString("")), kind, name, "", "")
}

// internGroupUnlessEmpty returns 0 for the empty string.
func (x *index) internGroupUnlessEmpty(kind groupKind, name string) uint32 {
	if name == "" {
		return 0
	}
	return x.internGroup(kind, name, "", "")
}

// isGroup reports whether a group, which may be 0, has this string as its first.
func (x *index) isGroup(handle uint32, name string) bool {
	if handle == 0 {
		return name == ""
	}
	return x.is(x.groups.at(handle).a, name)
}

// hashGroup returns the hash of the first string of a group, which may be 0.
func (x *index) hashGroup(handle uint32) uint64 {
	if handle == 0 {
		return x.hashText(0)
	}
	return x.hashText(x.groups.at(handle).a)
}

func (x *index) removeGroup(handle uint32) {
	g := *x.groups.at(handle)
	x.groupsByName.remove(nameHash(g.kind, x.hashText(g.a), x.hashText(g.b)), handle)
	if g.kind == ofAccount {
		x.accountsByUID.remove(uint32(x.hashText(g.c)), handle)
	}
	x.groups.remove(handle)
	x.texts.release(g.a)
	x.texts.release(g.b)
	x.texts.release(g.c)
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
	if group == 0 {
		return
	}
	g := x.groups.at(group)
	g.memberCount--
	cut(&g.members, member, links)
	if g.memberCount == 0 {
		x.removeGroup(group)
	}
}

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
	x.count(subject, minter, stamp, 1)
}

// remove takes a token out of the lists, and removes what has no other token.
func (x *index) remove(handle uint32) {
	slot := x.tokens(handle)
	subject, minter, stamp := x.subjects.at(slot.subject), x.minters.at(slot.minter), x.stamps.at(slot.stamp)
	cut(&subject.tokens, handle, x.tokenBySubject)
	cut(&minter.tokens, handle, x.tokenByMinter)
	cut(&stamp.tokens, handle, x.tokenByStamp)
	x.count(subject, minter, stamp, -1)
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

// count adds to the numbers of tokens.
func (x *index) count(subject *subject, minter *minter, stamp *stamp, n int) {
	subject.tokenCount += uint32(n)
	for _, group := range [...]uint32{subject.account, subject.node, minter.user, minter.credential, stamp.key} {
		if group != 0 {
			x.groups.at(group).tokenCount += uint32(n)
		}
	}
	for e := stamp.edges; e != 0; e = x.edges.at(e).next {
		x.groups.at(x.edges.at(e).audience).tokenCount += uint32(n)
	}
}
