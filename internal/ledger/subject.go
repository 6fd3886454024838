package ledger

import (
	"encoding/binary"
	"hash/maphash"
	"strings"
)

// subject is whom tokens are for: an account, and the object that they are bound to with its node.
type subject struct {
	account, node      uint32 // groups; 0 for no node
	kind               uint32 // a text
	name               name
	uid                uid
	tokens, tokenCount uint32
	byAccount, byNode  link
}

func (x *index) subjectByAccount(handle uint32) *link { return &x.subjects.at(handle).byAccount }
func (x *index) subjectByNode(handle uint32) *link    { return &x.subjects.at(handle).byNode }

// nodeOf returns the node that a token is kept with. A token that is bound to a node itself is kept with a node that has no kind
// and no UID.
func nodeOf(t *Token) Object {
	if t.Node.Name == "" {
		return Object{Name: t.OnNode().Name}
	}
	return t.Node
}

func (x *index) internSubject(t *Token) uint32 {
	node := nodeOf(t)
	hash := x.subjectHash(t, node.Name)
	if handle := x.subjectsByUID.find(hash, func(handle uint32) bool { return x.isSubject(x.subjects.at(handle), t, &node) }); handle != 0 {
		return handle
	}
	handle, s := x.subjects.add()
	s.account = x.internGroup(ofAccount, t.Namespace, t.Account, t.AccountUID)
	s.kind, s.name, s.uid = x.intern(t.Bound.Kind), x.internName(t.Bound.Name), x.internUID(t.Bound.UID)
	if node.Name != "" {
		s.node = x.internGroup(ofNode, node.Name, node.Kind, node.UID)
	}
	x.subjectsByUID.add(hash, handle)
	if t.Bound.Name != "" {
		x.subjectsByName.add(combine(x.hashString(t.Namespace), x.hashString(t.Bound.Name)), handle)
	}
	x.join(s.account, handle, x.subjectByAccount)
	x.join(s.node, handle, x.subjectByNode)
	return handle
}

// isSubject reports whether a token is of a subject.
func (x *index) isSubject(s *subject, t *Token, node *Object) bool {
	if !x.isUID(&s.uid, t.Bound.UID) || !x.isName(&s.name, t.Bound.Name) || !x.is(s.kind, t.Bound.Kind) {
		return false
	}
	account := x.groups.at(s.account)
	if !x.is(account.a, t.Namespace) || !x.is(account.b, t.Account) || !x.is(account.c, t.AccountUID) {
		return false
	}
	if s.node == 0 {
		return node.Name == ""
	}
	g := x.groups.at(s.node)
	return x.is(g.a, node.Name) && x.is(g.b, node.Kind) && x.is(g.c, node.UID)
}

// subjectHash depends only on the UID of the object, if it has one.
func (x *index) subjectHash(t *Token, node string) uint32 {
	if t.Bound.UID != "" {
		return x.uidHash(t.Bound.UID)
	}
	return combine(
		x.hashString(t.Namespace), x.hashString(t.Account), x.hashString(t.AccountUID),
		x.hashString(t.Bound.Kind), x.hashString(t.Bound.Name), x.hashString(node),
	)
}

// subjectHashAgain returns what subjectHash returned when the subject was made.
func (x *index) subjectHashAgain(s *subject) uint32 {
	if s.uid != noUID {
		return x.uidHashAgain(&s.uid)
	}
	account := x.groups.at(s.account)
	return combine(
		x.hashText(account.a), x.hashText(account.b), x.hashText(account.c), x.hashText(s.kind), x.hashName(&s.name), x.hashGroup(s.node),
	)
}

func (x *index) removeSubject(handle uint32) {
	s := *x.subjects.at(handle)
	x.subjectsByUID.remove(x.subjectHashAgain(&s), handle)
	if s.name != (name{}) {
		x.subjectsByName.remove(combine(x.hashText(x.groups.at(s.account).a), x.hashName(&s.name)), handle)
	}
	x.leave(s.account, handle, x.subjectByAccount)
	x.leave(s.node, handle, x.subjectByNode)
	x.subjects.remove(handle)
	x.texts.release(s.kind)
	x.texts.release(s.name.start)
	if s.uid.isText == 1 {
		x.texts.release(s.uid.text())
	}
}

// name is the name of an object. Generated names differ in what follows the last hyphen, so that part is not a text if it is short.
type name struct {
	start uint32  // a text: what precedes the last hyphen, or the whole name if end is empty
	end   [8]byte // zeros follow it
}

// splitName returns the parts of a name.
func splitName(text string) (start string, end [8]byte) {
	i := strings.LastIndexByte(text, '-')
	if rest := text[i+1:]; i >= 0 && rest != "" && len(rest) <= len(end) && strings.IndexByte(rest, 0) < 0 {
		copy(end[:], rest)
		return text[:i], end
	}
	return text, end
}

func (x *index) internName(text string) name {
	start, end := splitName(text)
	return name{x.intern(start), end}
}

func (x *index) lookupName(text string) (name, bool) {
	start, end := splitName(text)
	handle, ok := x.texts.lookup(start)
	return name{handle, end}, ok
}

func (x *index) isName(n *name, text string) bool {
	start, end := splitName(text)
	return n.end == end && x.is(n.start, start)
}

// appendName appends the whole name.
func (x *index) appendName(to []byte, n *name) []byte {
	to = append(to, x.texts.bytes(n.start)...)
	if n.end[0] == 0 {
		return to
	}
	to = append(to, '-')
	for _, b := range n.end {
		if b != 0 {
			to = append(to, b)
		}
	}
	return to
}

func (x *index) hashName(n *name) uint64 {
	var room [256]byte
	return maphash.Bytes(x.texts.seed, x.appendName(room[:0], n))
}

// uid is a UID: 16 bytes of a UUID, or the handle of another text in the first bytes.
type uid struct {
	bytes  [16]byte
	isText uint32
}

// noUID is the empty string.
var noUID = uid{isText: 1}

func (u *uid) text() uint32 { return binary.LittleEndian.Uint32(u.bytes[:]) }

func uidOfText(handle uint32) uid {
	u := uid{isText: 1}
	binary.LittleEndian.PutUint32(u.bytes[:], handle)
	return u
}

func (x *index) internUID(text string) uid {
	if id, ok := parseUUID(text); ok {
		return uid{bytes: id}
	}
	return uidOfText(x.intern(text))
}

func (x *index) lookupUID(text string) (uid, bool) {
	if id, ok := parseUUID(text); ok {
		return uid{bytes: id}, true
	}
	handle, ok := x.texts.lookup(text)
	return uidOfText(handle), ok
}

func (x *index) isUID(u *uid, text string) bool {
	if u.isText == 1 {
		return x.is(u.text(), text)
	}
	id, ok := parseUUID(text)
	return ok && u.bytes == id
}

// uidHash and uidHashAgain return the same for the same UID.
func (x *index) uidHash(text string) uint32 {
	if id, ok := parseUUID(text); ok {
		return combine(maphash.Bytes(x.texts.seed, id[:]))
	}
	return combine(x.hashString(text))
}

func (x *index) uidHashAgain(u *uid) uint32 {
	if u.isText == 1 {
		return combine(x.hashText(u.text()))
	}
	return combine(maphash.Bytes(x.texts.seed, u.bytes[:]))
}
