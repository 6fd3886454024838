package ledger

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

// world makes random batches and queries from few names, so that records have much in common.
type world struct {
	*rand.Rand
	now    time.Time
	tokens map[string]Token // the last record of each ID, which gets another only after that has expired
}

func newWorld(seed uint64) *world {
	return &world{Rand: rand.New(rand.NewPCG(seed, 0)), now: testNow, tokens: map[string]Token{}}
}

func pick[T any](w *world, values ...T) T { return values[w.IntN(len(values))] }

// id returns one of 400 IDs of tokens, of which a quarter are no UUIDs.
func (w *world) id() string {
	if n := w.IntN(400); n < 300 {
		return testUUID(n)
	} else {
		return fmt.Sprint("taken-over-", n)
	}
}

func (w *world) digest() string { return strings.Repeat(fmt.Sprintf("%02x", w.IntN(20)), 32) }

func (w *world) name(prefix string) string { return fmt.Sprint(prefix, w.IntN(5)) }

func (w *world) object() string {
	return pick(w, w.name("object"), w.name("object-"), w.name("object-abcdefg"), w.name("object-abcdefgh"), "-0", "object-")
}

func (w *world) credential() string {
	return pick(w, "", "X509SHA256="+w.digest(), "JTI="+w.id(), "JTI="+w.id())
}

func (w *world) uid() string { return pick(w, "", testUUID(-w.IntN(5)), w.name("uid")) }

func (w *world) minter() Minter {
	return Minter{
		User: pick(w, "", w.name("user")), UID: w.uid(), Credential: w.credential(), Address: w.name("address"),
		UserAgent: strings.Repeat("a", pick(w, 0, 1, maxShort-1, maxShort, maxShort+1, 1000)),
	}
}

func (w *world) token() Token {
	id := w.id()
	if known := w.tokens[id]; w.now.Before(known.Expires) {
		return known
	}
	t := Token{
		ID: id, Namespace: w.name("namespace"), Account: w.name("account"), AccountUID: w.uid(),
		Bound: Object{}, Issued: w.now, Expires: w.now.Add(time.Duration(w.IntN(3600)) * time.Second), Key: pick(w, "", w.name("key")),
		Minter: w.minter(),
	}
	if w.IntN(2) == 0 {
		t.Digest = Digest{byte(w.Uint32()), 15: byte(w.Uint32())}
	}
	for range w.IntN(4) {
		t.Audiences = append(t.Audiences, pick(w, "", w.name("audience")))
	}
	if kind := pick(w, "", "Pod", "Secret", "Node"); kind != "" {
		t.Bound = Object{Kind: kind, Name: w.object(), UID: w.uid()}
	}
	if w.IntN(2) == 0 {
		t.Node = Object{Kind: "Node", Name: w.object(), UID: w.uid()}
	}
	w.tokens[id] = t
	return t
}

func (w *world) certificate() Certificate {
	c := Certificate{
		ID: w.digest(), User: w.name("user"), Groups: []string{"a", "b"}, SignerName: w.name("signer"), Request: w.name("request"),
		Issued: w.now, Expires: w.now.Add(time.Duration(w.IntN(3600)) * time.Second), Minter: w.minter(),
	}
	return c
}

// anyID returns the ID of a token or certificate.
func (w *world) anyID() string { return pick(w, w.id(), w.id(), w.digest()) }

func (w *world) batch() *Batch {
	b := &Batch{}
	for range w.IntN(8) {
		b.Tokens = append(b.Tokens, w.token())
	}
	for range w.IntN(2) {
		b.Certificates = append(b.Certificates, w.certificate())
	}
	for range w.IntN(2) {
		b.Revocations = append(b.Revocations, Revocation{ID: w.anyID(), Expires: w.now.Add(time.Duration(w.IntN(3600)) * time.Second)})
	}
	return b
}

func (w *world) use() Use {
	return Use{ID: w.anyID(), At: w.now.Add(time.Duration(-w.IntN(3)) * time.Second), Address: pick(w, "", "10.0.0.1", "10.0.0.2", "2001:db8::1")}
}

func (w *world) query() Query {
	some := func(value string) string { return pick(w, "", "", "", value) }
	q := Query{
		Namespace: some(w.name("namespace")), Account: some(w.name("account")), AccountUID: some(w.uid()),
		MinterUser: some(w.name("user")), MinterCredential: some(w.credential()),
		Bound: Object{Kind: some(pick(w, "Pod", "Secret", "Node")), Name: some(w.object()), UID: some(w.uid())},
		Node:  some(w.object()), Key: some(w.name("key")), Audience: some(w.name("audience")), Limit: pick(w, 0, 1, 1, 2, 3, 10, 50),
	}
	if w.IntN(2) == 0 {
		q.After = Position{w.name("namespace"), pick(w, "", w.id())}
	}
	return q
}

// pair is Memory and its model, which get the same calls.
type pair struct {
	memory *Memory
	model  *model
	clock  *clocktesting.FakePassiveClock
	watch  *Watch
}

func newPair(t *testing.T) *pair {
	clock := clocktesting.NewFakePassiveClock(testNow)
	p := &pair{memory: NewMemory(clock), model: newModel(testNow), clock: clock}
	p.memory.Synced(0)
	watch, err := p.memory.Watch(0)
	if err != nil {
		t.Fatal(err)
	}
	p.watch = watch
	return p
}

// step does something random to both.
func (p *pair) step(w *world, revision uint64) {
	switch w.IntN(40) {
	case 0:
		w.now = w.now.Add(time.Duration(w.IntN(900)) * time.Second)
		p.clock.SetTime(w.now)
		p.model.now = w.now
	case 1:
		p.memory.Sweep()
		p.model.sweep()
	case 2, 3, 4, 5, 6:
		if use := w.use(); p.model.state(use.ID) == Live {
			p.memory.Used(use)
			p.model.used(use)
		}
	case 7:
		if use := w.use(); p.model.state(use.ID) == Live {
			p.memory.Apply(&Batch{Uses: []Use{use}}, revision)
			p.model.apply(&Batch{Uses: []Use{use}}, revision)
		}
	default:
		b := w.batch()
		p.memory.Apply(b, revision)
		p.model.apply(b, revision)
	}
}

func (p *pair) compare(t *testing.T, w *world) {
	t.Helper()
	compare := func(what any, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(want, got) { // cmp.Diff is much slower.
			t.Fatalf("%+v differs: -model +memory\n%s", what, cmp.Diff(want, got))
		}
	}
	id := w.anyID()
	compare("state of "+id, p.memory.State(id), p.model.state(id))
	record, _ := p.memory.TokenRecord(id)
	want := p.model.token(id)
	if want.ID == "" {
		want.LastUse = Use{}
	}
	compare("record of "+id, record, want)
	query := w.query()
	page, more := p.memory.Select(query)
	wantPage, wantMore := p.model.selectTokens(query)
	compare(query, page, wantPage)
	compare(query, more, wantMore)
	certificates := CertificateQuery{User: pick(w, "", w.name("user")), MinterCredential: pick(w, "", w.credential()), After: pick(w, "", w.digest()), Limit: w.IntN(3)}
	pageOf, more := p.memory.SelectCertificates(certificates)
	wantOf, wantMore := p.model.selectCertificates(certificates)
	compare(certificates, pageOf, wantOf)
	compare(certificates, more, wantMore)
	credential, transitive := "JTI="+w.id(), w.IntN(2) == 0
	tokens, issued := p.memory.Children(credential, transitive)
	wantTokens, wantIssued := p.model.children(credential, transitive)
	compare("children of "+credential, tokens, wantTokens)
	compare("children of "+credential, issued, wantIssued)
	key := w.name("key")
	compare("tokens of "+key, p.memory.CountByKey(key), p.model.countByKey(key))
}

// compareEvents compares the events since the last call. Those of one call have no order.
func (p *pair) compareEvents(t *testing.T) {
	t.Helper()
	var got []Event
	for len(got) < len(p.model.events) {
		events, err := p.watch.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, events...)
	}
	sorted := func(events []Event) []Event {
		slices.SortFunc(events, func(a, b Event) int {
			name := func(e Event) string {
				if e.Token != nil {
					return fmt.Sprint(e.Type, e.Token.ID)
				}
				return fmt.Sprint(e.Type, e.Certificate.ID)
			}
			return strings.Compare(name(a), name(b))
		})
		for i := range events {
			events[i].late = false
		}
		return events
	}
	if diff := cmp.Diff(sorted(p.model.events), sorted(got), cmp.AllowUnexported(Event{})); diff != "" {
		t.Fatalf("events differ: -model +memory\n%s", diff)
	}
	p.model.events = nil
}

// TestMemoryAgainstModel compares memory with its model while random things happen to both.
func TestMemoryAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w, p := newWorld(seed), newPair(t)
			for revision := range uint64(500) {
				p.step(w, revision)
				p.compareEvents(t)
				p.compare(t, w)
			}
			w.now = w.now.AddDate(1, 0, 0)
			p.clock.SetTime(w.now)
			p.memory.Sweep()
			checkEmpty(t, p.memory)
		})
	}
}

// checkEmpty checks that nothing is left of records that are gone.
func checkEmpty(t *testing.T, m *Memory) {
	t.Helper()
	x := &m.index
	for name, n := range map[string]int{
		"texts": x.texts.byHash.n, "groups": x.groupsByName.n, "accounts": x.accountsByUID.n, "subjects": x.subjectsByUID.n,
		"named subjects": x.subjectsByName.n, "minters": x.mintersByHash.n, "stamps": x.stampsByHash.n,
		"edges": int(x.edges.next) - 1 - len(x.edges.free), "groups in use": int(x.groups.next) - 1 - len(x.groups.free),
		"long texts": int(x.texts.long.next) - 1 - len(x.texts.long.free),
		"blocks":     int(m.orders.blocks.next) - 1 - len(m.orders.blocks.free),
		"namespaces": len(m.namespaces.sorted) + len(m.namespaces.byText), "deadlines": len(m.deadlines.heads), "tokens": m.tokens,
		"other IDs": len(m.textIDs) + len(m.plain.tokens), "certificates": len(m.plain.certificates) + len(m.plain.uses) + len(m.plain.revoked),
	} {
		if n > 0 {
			t.Errorf("%d %s are left", n, name)
		}
	}
	for i := range m.shards {
		if s := &m.shards[i]; s.byID.n+len(s.revoked) > 0 || int(s.slots.next)-1 > len(s.slots.free) {
			t.Errorf("shard %d has tokens", i)
		}
	}
}

// FuzzApply applies what storage could contain, twice, reads it, and checks that nothing is left after it has expired.
func FuzzApply(f *testing.F) {
	data, err := testBatch().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	w := newWorld(1)
	for range 5 {
		b := w.batch()
		b.Tokens = append(b.Tokens, Token{ // It has two nodes, which no issuer allows.
			ID: w.id(), Bound: Object{Kind: "Node", Name: "a"}, Node: Object{Name: "b"}, Expires: testNow.Add(time.Hour),
		})
		b.Uses = append(b.Uses, w.use())
		if data, err = b.Marshal(); err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Unmarshal(data)
		if err != nil {
			return
		}
		clock := clocktesting.NewFakePassiveClock(testNow)
		m := NewMemory(clock)
		m.Synced(0)
		m.Apply(b, 1)
		m.Apply(b, 2)
		page, _ := m.Select(Query{})
		for i := range page {
			got, _ := m.Select(Query{
				Namespace: page[i].Namespace, Account: page[i].Account, MinterUser: page[i].Minter.User, Bound: page[i].Bound, Key: page[i].Key, Node: page[i].OnNode().Name,
			})
			if m.State(page[i].ID) != Live || !slices.ContainsFunc(got, func(r TokenRecord) bool { return r.ID == page[i].ID }) {
				t.Fatalf("token %d of the page is not found", i)
			}
			m.Children(page[i].Minter.Credential, true)
		}
		clock.SetTime(time.Unix(1<<32, 0)) // Memory holds no later time.
		m.Sweep()
		checkEmpty(t, m)
	})
}

// TestChurn adds tokens and lets them expire for a long time. Memory must not grow.
func TestChurn(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakePassiveClock(testNow)
	m := NewMemory(clock)
	places := func() (n int) {
		x := &m.index
		for i := range x.texts.classes {
			n += int(x.texts.classes[i].next)
		}
		for i := range m.shards {
			n += int(m.shards[i].slots.next)
		}
		return n + int(x.groups.next+x.subjects.next+x.minters.next+x.stamps.next+x.edges.next+m.orders.blocks.next)
	}
	var early int
	for round := range 200 {
		var b Batch
		for n := range 100 {
			token := testToken(round*100 + n)
			token.Namespace, token.Key, token.Minter.User = fmt.Sprint("namespace-", round), fmt.Sprint("key-", round), fmt.Sprint("user-", n, round)
			token.Audiences = []string{fmt.Sprint("audience-", round)}
			token.Expires = clock.Now().Add(time.Minute)
			b.Tokens = append(b.Tokens, token)
		}
		m.Apply(&b, uint64(round))
		if round == 20 {
			early = places()
		}
		clock.SetTime(clock.Now().Add(20 * time.Second))
		m.Sweep()
	}
	if now := places(); now > early*5/4 {
		t.Errorf("%d places after 200 rounds, %d after 20", now, early)
	}
}

// TestAnyOrder applies the same batches in many orders, each up to three times, and compares the results.
func TestAnyOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	var batches []*Batch
	for range 100 {
		b := w.batch()
		for i := range b.Revocations { // A revocation ends with its credential.
			b.Revocations[i].Expires = w.now.Add(time.Hour)
		}
		for range w.IntN(40) {
			b.Uses = append(b.Uses, w.use())
		}
		batches = append(batches, b)
	}
	certificates := map[string]Certificate{} // The same ID has the same record.
	for _, b := range batches {
		for i, c := range b.Certificates {
			if _, ok := certificates[c.ID]; !ok {
				certificates[c.ID] = c
			}
			b.Certificates[i] = certificates[c.ID]
		}
	}
	reference := newModel(testNow)
	for _, b := range batches {
		reference.apply(b, 1)
	}
	want, _ := reference.selectTokens(Query{})
	wantCertificates, _ := reference.selectCertificates(CertificateQuery{})
	for range 20 {
		m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
		order := slices.Concat(batches, batches[:w.IntN(100)], batches[:w.IntN(100)])
		w.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, b := range order {
			m.Apply(b, 1)
		}
		got, _ := m.Select(Query{})
		if !reflect.DeepEqual(want, got) {
			t.Fatal(cmp.Diff(want, got))
		}
		gotCertificates, _ := m.SelectCertificates(CertificateQuery{})
		if !reflect.DeepEqual(wantCertificates, gotCertificates) {
			t.Fatal(cmp.Diff(wantCertificates, gotCertificates))
		}
	}
}

// TestRevocationIsFinal applies a record and its revocation in both orders, and each twice.
func TestRevocationIsFinal(t *testing.T) {
	t.Parallel()
	for _, id := range []string{testUUID(1), "taken over"} {
		record := &Batch{Tokens: []Token{{ID: id, Expires: testNow.Add(time.Hour)}}}
		revocation := &Batch{Revocations: []Revocation{{ID: id, Expires: testNow.Add(time.Hour)}}}
		for _, order := range [][]*Batch{{record, revocation}, {revocation, record}, {record, revocation, record}, {revocation, record, revocation}} {
			m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
			for i, batch := range order {
				m.Apply(batch, uint64(i+1))
			}
			if got := m.State(id); got != Revoked {
				t.Errorf("state %v, want %v", got, Revoked)
			}
			if _, _, ok := m.Token(id); ok {
				t.Error("a revoked token has a record")
			}
			if m.Revision() != uint64(len(order)) {
				t.Errorf("revision %d, want %d", m.Revision(), len(order))
			}
		}
	}
}

// TestRevocationOutlivesRecord applies a revocation that ends before the record, and then the record again.
func TestRevocationOutlivesRecord(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakePassiveClock(testNow)
	m := NewMemory(clock)
	record := &Batch{Tokens: []Token{testToken(1)}}
	m.Apply(record, 1)
	m.Apply(&Batch{Revocations: []Revocation{{ID: testUUID(1), Expires: testNow.Add(time.Second)}}}, 2)
	for _, tt := range []struct {
		after time.Duration
		want  State
	}{{time.Minute, Revoked}, {time.Hour - time.Second, Revoked}, {time.Hour, Unknown}} {
		clock.SetTime(testNow.Add(tt.after))
		m.Sweep()
		m.Apply(record, 1)
		if got := m.State(testUUID(1)); got != tt.want {
			t.Errorf("state %v after %v, want %v", got, tt.after, tt.want)
		}
	}
}

// TestSweepAfterClockWasAhead sweeps while the clock is an hour ahead, and then adds a token that expires before that.
func TestSweepAfterClockWasAhead(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakePassiveClock(testNow)
	m := NewMemory(clock)
	clock.SetTime(testNow.Add(time.Hour))
	m.Sweep()
	clock.SetTime(testNow)
	early := testToken(2)
	early.Expires = testNow.Add(time.Minute)
	m.Apply(&Batch{Tokens: []Token{early}}, 2)
	for _, tt := range []struct {
		after time.Duration
		live  bool
	}{{time.Minute - time.Second, true}, {time.Minute, false}} {
		clock.SetTime(testNow.Add(tt.after))
		m.Sweep()
		if live := m.State(early.ID) == Live; live != tt.live {
			t.Errorf("live %t after %v", live, tt.after)
		}
	}
}

// TestUseBeforeRecord applies uses some time before the record, which is in another batch.
func TestUseBeforeRecord(t *testing.T) {
	t.Parallel()
	use := func(second int) Use {
		return Use{ID: testUUID(1), At: testNow.Add(time.Duration(second) * time.Second), Address: "10.0.0.1"}
	}
	for _, tt := range []struct {
		name          string
		first, second int
		sweeps        int
		want          Use
	}{
		{"soon", 1, 2, 0, use(2)},
		{"later", 1, 2, 1, use(2)},
		{"later, out of order", 2, 1, 1, use(2)},
		{"too late for the first", 2, 1, 2, use(1)},
		{"too late", 2, 1, 3, Use{}},
	} {
		clock := clocktesting.NewFakePassiveClock(testNow)
		m := NewMemory(clock)
		m.Used(use(9)) // It has no record, so it was not verified here.
		m.Apply(&Batch{Uses: []Use{use(tt.first)}}, 1)
		for i := range tt.sweeps {
			clock.SetTime(clock.Now().Add(agePeriod))
			m.Sweep()
			if i == 0 {
				m.Apply(&Batch{Uses: []Use{use(tt.second)}}, 2)
			}
		}
		if tt.sweeps == 0 {
			m.Apply(&Batch{Uses: []Use{use(tt.second)}}, 2)
		}
		m.Apply(&Batch{Tokens: []Token{testToken(1)}}, 3)
		if _, got, ok := m.Token(testUUID(1)); got != tt.want || !ok {
			t.Errorf("%s: last use %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// TestMemoryConcurrently reads and writes at once, for the race detector.
func TestMemoryConcurrently(t *testing.T) {
	t.Parallel()
	m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
	m.Synced(0)
	var group sync.WaitGroup
	for seed := range uint64(4) {
		group.Go(func() {
			w := newWorld(seed)
			for n := range uint64(300) {
				m.Apply(w.batch(), n)
				m.State(w.anyID())
				m.Used(w.use())
				m.Select(w.query())
				m.TokenRecord(w.id())
				m.Children("JTI="+w.id(), true)
				m.Sweep()
			}
		})
	}
	group.Wait()
}

// TestTokenState checks that a record is of the token with its digest only, and that a revocation is of any token with its ID.
func TestTokenState(t *testing.T) {
	t.Parallel()
	m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
	live, plain := testToken(1), testToken(2)
	plain.ID = "not a UUID"
	m.Apply(&Batch{Tokens: []Token{live, plain}, Revocations: []Revocation{{ID: testUUID(3), Expires: testNow.Add(time.Hour)}, {ID: "ended", Expires: testNow.Add(time.Hour)}}}, 1)
	other := live.Digest
	other[15]++
	for _, tt := range []struct {
		id     string
		digest Digest
		want   State
	}{
		{live.ID, live.Digest, Live}, {live.ID, other, Unknown}, {live.ID, Digest{}, Unknown}, {testUUID(4), live.Digest, Unknown},
		{testUUID(3), live.Digest, Revoked}, {plain.ID, plain.Digest, Unknown}, {"ended", live.Digest, Revoked},
	} {
		if got := m.TokenState(tt.id, &tt.digest); got != tt.want {
			t.Errorf("%s with %x: %v, want %v", tt.id, tt.digest, got, tt.want)
		}
	}
}
