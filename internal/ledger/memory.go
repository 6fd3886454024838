package ledger

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/google/uuid"
	"k8s.io/utils/clock"
)

// State is what the ledger knows about a credential.
type State int

const (
	// Unknown means that there is no record. A token without a record must be refused.
	Unknown State = iota
	// Live means that there is a record.
	Live
	// Revoked means that the credential was revoked.
	Revoked
)

// Memory is the sum of all batches. It is safe for concurrent use.
//
// It holds times as whole seconds from 1970 to 2106, and the address of a use if it is an IP address. Of two records with the
// same ID it holds the first. The node of a token without a name is none.
type Memory struct {
	clock   clock.PassiveClock
	history history
	seed    maphash.Seed
	shards  [shards]shard
	plain   plain

	// mu guards everything below, and what the shards say. It is taken before the locks above.
	mu         sync.RWMutex
	index      index
	orders     orders
	namespaces namespaces
	deadlines  deadlines
	textIDs    map[uint32]string // of the tokens with hasTextID, by handle
	tokens     int
	revision   uint64
	synced     bool
	aged       time.Time // when the early uses were aged last
}

// NewMemory returns an empty memory.
func NewMemory(clock clock.PassiveClock) *Memory {
	m := &Memory{clock: clock, seed: maphash.MakeSeed(), plain: newPlain(), textIDs: map[uint32]string{}, aged: clock.Now()}
	m.index = index{texts: newTexts(), tokens: m.slot}
	m.orders = orders{key: m.key}
	m.namespaces.byText = map[uint32]*namespace{}
	m.deadlines.heads = map[uint32]uint32{}
	for i := range m.shards {
		m.shards[i].revoked = map[uuid.UUID]uint32{}
	}
	return m
}

// place returns the shard of an ID, and the hash in that shard.
func (m *Memory) place(id *uuid.UUID) (number, hash uint32) {
	sum := maphash.Bytes(m.seed, id[:])
	return uint32(sum) % shards, uint32(sum >> 32)
}

// slot returns the token with a handle.
func (m *Memory) slot(handle uint32) *tokenSlot {
	return m.shards[handle%shards].slots.at(handle >> shardBits)
}

// key returns the ID of the token with a handle.
func (m *Memory) key(handle uint32) idKey {
	slot := m.slot(handle)
	if slot.hasTextID() {
		return idKey{text: m.textIDs[handle]}
	}
	return idKey{uuid: slot.id}
}

// State returns what the ledger knows about the token or certificate with an ID. A record stays until the next Sweep
// after it has expired.
func (m *Memory) State(id string) State {
	uuid, ok := parseUUID(id)
	if !ok {
		return m.plain.state(id)
	}
	number, hash := m.place(&uuid)
	return m.shards[number].state(hash, &uuid, nil)
}

// TokenState returns what the ledger knows about the token with an ID and a digest. It is Unknown if the record with this ID is that
// of another token, and if the ID is not a UUID: this authority issues no such tokens.
func (m *Memory) TokenState(id string, digest *Digest) State {
	uuid, ok := parseUUID(id)
	if !ok {
		if m.plain.state(id) == Revoked {
			return Revoked
		}
		return Unknown
	}
	number, hash := m.place(&uuid)
	return m.shards[number].state(hash, &uuid, digest)
}

// Used notes a use of a credential. It ignores a credential without a record.
func (m *Memory) Used(use Use) { m.used(&use, false) }

// used notes a use. If there is no record and keep is set, it keeps the use until the record arrives.
func (m *Memory) used(use *Use, keep bool) {
	packed := newUse(use)
	uuid, ok := parseUUID(use.ID)
	if !ok {
		m.usedPlain(use.ID, packed, keep)
		return
	}
	number, hash := m.place(&uuid)
	m.shards[number].used(hash, &uuid, packed, keep)
}

// Apply adds a batch that storage holds at a revision.
func (m *Memory) Apply(batch *Batch, revision uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := application{Memory: m, late: revision <= m.revision, now: instant(m.clock.Now())}
	m.revision = max(m.revision, revision)
	for i := range batch.Revocations {
		a.revoke(&batch.Revocations[i])
	}
	for i := range batch.Tokens {
		a.addToken(&batch.Tokens[i])
	}
	for i := range batch.Certificates {
		a.addCertificate(&batch.Certificates[i])
	}
	for i := range batch.Uses {
		m.used(&batch.Uses[i], true)
	}
	m.history.add(a.events)
}

// Synced states that every batch that storage held at a revision was applied. The first call begins the history of events.
func (m *Memory) Synced(revision uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision = max(m.revision, revision)
	m.synced = true
	m.history.start(m.revision)
}

// Revision returns the latest revision that was applied, or that Synced named.
func (m *Memory) Revision() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.revision
}

const (
	// sweepPeriod is the time between two calls of Sweep by Run.
	sweepPeriod = time.Second
	// sweepStep is the number of tokens that Sweep removes before it lets other calls proceed.
	sweepStep = 256
	// agePeriod is how long a use without a record is kept at least.
	agePeriod = 5 * time.Minute
)

// Run calls Sweep once a second until the context ends.
func (m *Memory) Run(ctx context.Context, clock clock.WithTicker) {
	ticker := clock.NewTicker(sweepPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C():
			m.Sweep()
		case <-ctx.Done():
			return
		}
	}
}

// Sweep removes the records that have expired, and the revocations that are not needed any more.
func (m *Memory) Sweep() {
	now := m.clock.Now()
	for more := true; more; {
		more = m.sweepTokens(instant(now))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := application{Memory: m, late: true, now: instant(now)}
	a.sweepCertificates()
	m.history.add(a.events)
	age := now.Sub(m.aged) >= agePeriod
	if age {
		m.aged = now
	}
	for i := range m.shards {
		m.shards[i].sweep(instant(now), age)
	}
	m.plain.sweep(instant(now), age)
}

// sweepTokens removes some of the tokens that have expired, and returns whether there are more.
func (m *Memory) sweepTokens(now uint32) (more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := application{Memory: m, late: true, now: now}
	for range sweepStep {
		handle := m.deadlines.expired(now)
		if handle == 0 {
			break
		}
		a.removeToken(handle)
		more = true
	}
	m.history.add(a.events)
	return more
}

// deadlines has the tokens by the second in which they expire.
type deadlines struct {
	heads map[uint32]uint32 // the first token of the list byDeadline, for each second that has one
	swept uint64            // No earlier second has a token.
}

// expired returns a token that has expired, or 0.
func (d *deadlines) expired(now uint32) uint32 {
	for d.swept <= uint64(now) {
		if head := d.heads[uint32(d.swept)]; head != 0 {
			return head
		}
		if uint64(now)-d.swept > uint64(len(d.heads)) {
			d.swept = d.first(now)
		} else {
			d.swept++
		}
	}
	return 0
}

// first returns the first second that has a token, or the one after now if that is earlier.
func (d *deadlines) first(now uint32) uint64 {
	first := uint64(now) + 1
	for second := range d.heads {
		first = min(first, uint64(second))
	}
	return first
}

func (d *deadlines) insert(x *index, handle, second uint32) {
	head := d.heads[second]
	insert(&head, handle, x.tokenByDeadline)
	d.heads[second] = head
	d.swept = min(d.swept, uint64(second))
}

func (d *deadlines) cut(x *index, handle, second uint32) {
	head := d.heads[second]
	cut(&head, handle, x.tokenByDeadline)
	if head == 0 {
		delete(d.heads, second)
	} else {
		d.heads[second] = head
	}
}
