package ledger

import (
	"cmp"
	"slices"
	"strings"
)

// Select returns the page of tokens that a query selects, in the order of their positions, and whether there are more.
//
// The cost of a page follows from the smallest number of tokens that one field of the query selects alone, or from the
// size of the page if most tokens match. A query for nothing but the kind of an object reads all tokens.
func (m *Memory) Select(q Query) (page []TokenRecord, more bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	f, ok := m.newFilter(&q)
	if !ok {
		return nil, false
	}
	limit := q.limit()
	handles := m.selectTokens(f, q.After, limit+1)
	r := m.newReader()
	for _, handle := range handles[:min(limit, len(handles))] {
		page = append(page, r.token(handle))
	}
	return page, len(handles) > limit
}

// filter is a query with handles instead of strings. Zero and nil mean that a field does not matter.
type filter struct {
	*Memory
	namespace, account, accountUID uint32 // texts
	user, credential               uint32 // groups
	kind                           uint32 // a text
	name                           *name
	uid                            *uid
	node                           uint32 // a text
	key, audience                  uint32 // groups
}

// newFilter returns false if the query has a string that no token has.
func (m *Memory) newFilter(q *Query) (f filter, ok bool) {
	f.Memory, ok = m, true
	text := func(text string) uint32 {
		handle, known := m.index.texts.lookup(text)
		ok = ok && known
		return handle
	}
	group := func(kind groupKind, text string) uint32 {
		if text == "" {
			return 0
		}
		handle := m.index.lookupGroup(kind, text)
		ok = ok && handle != 0
		return handle
	}
	f.namespace, f.account, f.accountUID = text(q.Namespace), text(q.Account), text(q.AccountUID)
	f.user, f.credential = group(ofUser, q.MinterUser), group(ofCredential, q.MinterCredential)
	f.kind, f.node = text(q.Bound.Kind), text(q.Node)
	f.key, f.audience = group(ofKey, q.Key), group(ofAudience, q.Audience)
	if q.Bound.Name != "" {
		name, known := m.index.lookupName(q.Bound.Name)
		f.name, ok = &name, ok && known
	}
	if q.Bound.UID != "" {
		uid, known := m.index.lookupUID(q.Bound.UID)
		f.uid, ok = &uid, ok && known
	}
	return f, ok
}

func isHandle(wanted, value uint32) bool { return wanted == 0 || wanted == value }

func (f *filter) matches(handle uint32) bool {
	slot, x := f.slot(handle), &f.index
	if f.key != 0 || f.audience != 0 {
		stamp := x.stamps.at(slot.stamp)
		if !isHandle(f.key, stamp.key) || f.audience != 0 && !x.hasAudience(stamp, f.audience) {
			return false
		}
	}
	if f.user != 0 || f.credential != 0 {
		minter := x.minters.at(slot.minter)
		if !isHandle(f.user, minter.user) || !isHandle(f.credential, minter.credential) {
			return false
		}
	}
	subject := x.subjects.at(slot.subject)
	account := x.groups.at(subject.account)
	return isHandle(f.namespace, account.a) && isHandle(f.account, account.b) && isHandle(f.accountUID, account.c) &&
		isHandle(f.kind, subject.kind) && (f.name == nil || subject.name == *f.name) && (f.uid == nil || subject.uid == *f.uid) &&
		(f.node == 0 || subject.node != 0 && x.groups.at(subject.node).a == f.node)
}

// candidates are the tokens that one field of a query selects.
type candidates struct {
	count int
	each  func(visit func(handle uint32))
}

// selectTokens returns up to limit tokens that match, in order, behind a position.
func (m *Memory) selectTokens(f filter, after Position, limit int) []uint32 {
	all := m.tokens
	if f.namespace != 0 {
		all = 0
		if n := m.namespaces.byText[f.namespace]; n != nil {
			all = n.order.n
		}
	}
	best := candidates{count: all}
	for _, c := range f.candidates() {
		if c.count < best.count {
			best = c
		}
	}
	// Reading in order ends when the page is full. That is after all*limit/count tokens if the candidates are spread evenly. If they
	// are not, it ends after as many steps as there are candidates, and the candidates are read after all.
	if best.each == nil || best.count > 4*limit && best.count > all/best.count*limit {
		budget := best.count
		if best.each == nil {
			budget = all
		}
		if page, ok := m.inOrder(f, after, limit, budget); ok {
			return page
		}
	}
	return m.firstOf(f, best, after, limit)
}

// inOrder reads the tokens in order. It returns false if the page is not complete after budget tokens.
func (m *Memory) inOrder(f filter, after Position, limit, budget int) (page []uint32, ok bool) {
	visit := func(handle uint32) bool {
		if budget--; budget < 0 {
			return false
		}
		if f.matches(handle) {
			page = append(page, handle)
		}
		return len(page) < limit
	}
	for _, n := range m.namespaces.sorted[m.namespaces.search(after.Namespace):] {
		if f.namespace != 0 && n.text != f.namespace {
			continue
		}
		var start *idKey
		if n.name == after.Namespace && after.ID != "" {
			key := newIDKey(after.ID)
			start = &key
		}
		if !m.orders.each(&n.order, start, visit) {
			break
		}
	}
	return page, budget >= 0
}

// placed is a token with its place in the order.
type placed struct {
	handle    uint32
	namespace uint32
	key       idKey
}

func (m *Memory) comparePlaced(a, b *placed) int {
	if a.namespace != b.namespace {
		return strings.Compare(m.namespaces.byText[a.namespace].name, m.namespaces.byText[b.namespace].name)
	}
	return cmp.Or(cmp.Compare(a.key.prefix(), b.key.prefix()), a.key.compare(&b.key))
}

// firstOf returns the first of the candidates that match. It keeps the best so far, with room for as many again.
func (m *Memory) firstOf(f filter, c candidates, after Position, limit int) []uint32 {
	var first []placed
	trim := func() {
		slices.SortFunc(first, func(a, b placed) int { return m.comparePlaced(&a, &b) })
		first = first[:min(limit, len(first))]
	}
	var last *placed // the last of the page so far, once it is full
	afterKey := newIDKey(after.ID)
	c.each(func(handle uint32) {
		if !f.matches(handle) {
			return
		}
		p := placed{handle, m.namespaceOf(handle), m.key(handle)}
		if !m.isBehind(&p, after, &afterKey) || last != nil && m.comparePlaced(&p, last) > 0 {
			return
		}
		if first = append(first, p); len(first) == 2*limit {
			trim()
			end := first[limit-1]
			last = &end
		}
	})
	trim()
	handles := make([]uint32, len(first))
	for i := range first {
		handles[i] = first[i].handle
	}
	return handles
}

func (m *Memory) namespaceOf(handle uint32) uint32 {
	return m.index.groups.at(m.index.subjects.at(m.slot(handle).subject).account).a
}

// isBehind reports whether a token is behind a position, whose ID is also given as a key.
func (m *Memory) isBehind(p *placed, after Position, key *idKey) bool {
	if c := strings.Compare(m.namespaces.byText[p.namespace].name, after.Namespace); c != 0 {
		return c > 0
	}
	if after.ID == "" {
		return true
	}
	return cmp.Or(cmp.Compare(p.key.prefix(), key.prefix()), p.key.compare(key)) > 0
}
