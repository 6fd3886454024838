package ledger

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
	"strings"
)

// idKey is an ID as it is compared: UUIDs come before other IDs.
type idKey struct {
	uuid [16]byte
	text string // the whole ID, if it is not a UUID
}

func newIDKey(id string) idKey {
	if uuid, ok := parseUUID(id); ok {
		return idKey{uuid: uuid}
	}
	return idKey{text: id}
}

func (k *idKey) String() string {
	if k.text != "" {
		return k.text
	}
	return formatUUID(k.uuid[:])
}

// prefix is ordered like the keys, but equal for many.
func (k *idKey) prefix() uint32 {
	if k.text != "" {
		return 1<<32 - 1
	}
	return binary.BigEndian.Uint32(k.uuid[:])
}

func (k *idKey) compare(other *idKey) int {
	if k.text != "" || other.text != "" {
		return strings.Compare(k.text, other.text) // The text of a UUID is empty here.
	}
	return bytes.Compare(k.uuid[:], other.uuid[:])
}

// order has the tokens of one namespace in the order of their IDs: a list of blocks of tokens. A place is found in two steps, in
// the list and in the block.
type order struct {
	spans []span
	n     int
}

// span is a block, with a copy of its first entry.
type span struct {
	first entry
	block uint32
}

// entry is a token, with the prefix of its ID: most entries are compared without reading their tokens.
type entry struct{ prefix, token uint32 }

// block has up to blockSize entries.
type block struct {
	entries [blockSize]entry
	n       uint32
}

const blockSize = 64

// orders are the parts that the orders of all namespaces have in common.
type orders struct {
	blocks slab[block]
	key    func(token uint32) idKey
}

// compare compares an entry with a key.
func (s *orders) compare(e entry, prefix uint32, key *idKey) int {
	if e.prefix != prefix {
		return cmp.Compare(e.prefix, prefix)
	}
	k := s.key(e.token)
	return k.compare(key)
}

// search returns the position of the first entry that is not before a key: a span, and an index in its block. The index can be
// that after the last entry. If there are no entries, it returns 0, 0.
func (s *orders) search(o *order, key *idKey) (int, int) {
	prefix := key.prefix()
	i := sort.Search(len(o.spans), func(i int) bool { return s.compare(o.spans[i].first, prefix, key) > 0 })
	if i = max(i-1, 0); i == len(o.spans) {
		return 0, 0
	}
	b := s.blocks.at(o.spans[i].block)
	return i, sort.Search(int(b.n), func(j int) bool { return s.compare(b.entries[j], prefix, key) >= 0 })
}

func (s *orders) insert(o *order, token uint32) {
	key := s.key(token)
	e := entry{key.prefix(), token}
	o.n++
	if len(o.spans) == 0 {
		handle, b := s.blocks.add()
		b.entries[0], b.n = e, 1
		o.spans = append(o.spans, span{e, handle})
		return
	}
	i, j := s.search(o, &key)
	b := s.blocks.at(o.spans[i].block)
	if b.n == blockSize {
		handle, upper := s.blocks.add()
		b = s.blocks.at(o.spans[i].block)
		upper.n = uint32(copy(upper.entries[:], b.entries[blockSize/2:]))
		b.n = blockSize / 2
		o.spans = slices.Insert(o.spans, i+1, span{upper.entries[0], handle})
		if j > blockSize/2 {
			i, j, b = i+1, j-blockSize/2, upper
		}
	}
	copy(b.entries[j+1:b.n+1], b.entries[j:b.n])
	b.entries[j] = e
	b.n++
	o.spans[i].first = b.entries[0]
}

func (s *orders) remove(o *order, token uint32) {
	key := s.key(token)
	i, j := s.search(o, &key)
	b := s.blocks.at(o.spans[i].block)
	copy(b.entries[j:b.n], b.entries[j+1:b.n])
	b.n--
	o.n--
	if b.n == 0 {
		s.blocks.remove(o.spans[i].block)
		o.spans = slices.Delete(o.spans, i, i+1)
		return
	}
	o.spans[i].first = b.entries[0]
	if i+1 < len(o.spans) {
		s.join(o, i)
	}
	if i > 0 {
		s.join(o, i-1)
	}
}

// join moves the entries of the span after i to span i, if both together are less than half full.
func (s *orders) join(o *order, i int) {
	b, next := s.blocks.at(o.spans[i].block), s.blocks.at(o.spans[i+1].block)
	if b.n+next.n > blockSize/2 {
		return
	}
	b.n += uint32(copy(b.entries[b.n:], next.entries[:next.n]))
	s.blocks.remove(o.spans[i+1].block)
	o.spans = slices.Delete(o.spans, i+1, i+2)
}

// each calls visit for the tokens behind a key in order, or for all if it is nil, until visit returns false. It reports
// whether visit never did.
func (s *orders) each(o *order, after *idKey, visit func(token uint32) bool) bool {
	var i, j int
	if after != nil {
		i, j = s.search(o, after)
	}
	for ; i < len(o.spans); i, j = i+1, 0 {
		b := s.blocks.at(o.spans[i].block)
		for ; j < int(b.n); j++ {
			e := b.entries[j]
			if after != nil && s.compare(e, after.prefix(), after) <= 0 {
				continue
			}
			after = nil
			if !visit(e.token) {
				return false
			}
		}
	}
	return true
}

// namespace has the tokens of one namespace.
type namespace struct {
	name  string
	text  uint32
	order order
}

// namespaces are those that have tokens.
type namespaces struct {
	byText map[uint32]*namespace
	sorted []*namespace // by name
}

// add returns the namespace with a name, which is also given as a text.
func (n *namespaces) add(x *index, name string, text uint32) *namespace {
	if found := n.byText[text]; found != nil {
		return found
	}
	added := &namespace{name: strings.Clone(name), text: x.intern(name)}
	n.byText[text] = added
	n.sorted = slices.Insert(n.sorted, n.search(name), added)
	return added
}

// search returns the index of the first namespace that is not before a name.
func (n *namespaces) search(name string) int {
	return sort.Search(len(n.sorted), func(i int) bool { return n.sorted[i].name >= name })
}

// removeFromNamespace removes a token from a namespace, and the namespace if it has no other.
func (m *Memory) removeFromNamespace(text, handle uint32) {
	n := m.namespaces.byText[text]
	m.orders.remove(&n.order, handle)
	if n.order.n > 0 {
		return
	}
	delete(m.namespaces.byText, text)
	i := m.namespaces.search(n.name)
	m.namespaces.sorted = slices.Delete(m.namespaces.sorted, i, i+1)
	m.index.texts.release(text)
}
