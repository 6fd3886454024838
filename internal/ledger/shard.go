package ledger

import (
	"sync"

	"github.com/google/uuid"
)

// tokenSlot is a token in memory. It contains no pointers.
type tokenSlot struct {
	// The lock of the shard guards these. The ID and the digest are written only before the token is found by its ID.
	id     uuid.UUID // meaningless if hasTextID
	digest Digest
	use    use

	// The lock of Memory guards these.
	issued, expires                          uint32    // as instant
	revision                                 [2]uint32 // upper and lower half; the upper one includes hasTextID
	subject, minter, stamp                   uint32
	bySubject, byMinter, byStamp, byDeadline link
}

// hasTextID is the bit in tokenSlot.revision of a token whose ID is not a UUID. Memory.textIDs has the ID.
const hasTextID = 1 << 31

func (t *tokenSlot) hasTextID() bool { return t.revision[0]&hasTextID != 0 }

// at returns the revision.
func (t *tokenSlot) at() uint64 {
	return uint64(t.revision[0]&^hasTextID)<<32 | uint64(t.revision[1])
}

func (t *tokenSlot) setRevision(revision uint64) {
	t.revision[0] |= uint32(revision >> 32)
	t.revision[1] = uint32(revision)
}

// shard has the tokens of a part of all IDs. Only the part of a request that every request has to wait for, State and Used, takes
// its lock alone. All else takes the lock of Memory before that of a shard.
type shard struct {
	mu    sync.RWMutex
	byID  multimap // of the tokens whose ID is a UUID
	slots slab[tokenSlot]
	// revoked has the credentials that were revoked, and when they would have expired.
	revoked map[uuid.UUID]uint32
	// early has the uses that arrived before their records.
	early early[uuid.UUID]
}

// The handle of a token is that of its slot, and the number of its shard in the lower bits.
const (
	shardBits = 6
	shards    = 1 << shardBits
)

// find returns the slot of the token with an ID. The caller has the lock of the shard.
func (s *shard) find(hash uint32, id *uuid.UUID) uint32 {
	return s.byID.find(hash, func(slot uint32) bool { return s.slots.at(slot).id == *id })
}

// state returns the state of a credential. If digest is not nil, it is that of the token with this ID and digest.
func (s *shard) state(hash uint32, id *uuid.UUID, digest *Digest) State {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if slot := s.find(hash, id); slot != 0 {
		if digest != nil && s.slots.at(slot).digest != *digest {
			return Unknown
		}
		return Live
	}
	if _, revoked := s.revoked[*id]; revoked {
		return Revoked
	}
	return Unknown
}

// used notes a use of a token. If there is no such token and keep is set, it keeps the use for the record.
func (s *shard) used(hash uint32, id *uuid.UUID, u use, keep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot := s.find(hash, id); slot == 0 {
		if _, revoked := s.revoked[*id]; keep && !revoked {
			s.early.note(*id, u)
		}
	} else if old := &s.slots.at(slot).use; u.newer(old) {
		*old = u
	}
}

// early has uses that arrived before their records. It forgets them after some time, because a record may never arrive.
type early[K comparable] struct{ recent, older map[K]use }

func (e *early[K]) note(id K, u use) {
	if old := e.recent[id]; u.newer(&old) {
		if e.recent == nil {
			e.recent = map[K]use{}
		}
		e.recent[id] = u
	}
}

// take returns the use of a credential, and forgets it.
func (e *early[K]) take(id K) use {
	u, old := e.recent[id], e.older[id]
	delete(e.recent, id)
	delete(e.older, id)
	if old.newer(&u) {
		return old
	}
	return u
}

// age forgets the uses that were noted before the last call of age.
func (e *early[K]) age() { e.recent, e.older = nil, e.recent }
