package rbac

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

const (
	// shards is the number of tables the scopes are spread over, so that one
	// that has to grow copies little: 1,600 of 100,000 scopes.
	shards = 64
	// vacant and removed are hashes no key has: of a cell never used, which
	// ends a search, and of one whose scope is gone, which does not.
	vacant, removed = 0, 1
	reservedHashes  = 2
)

// scopeTable finds scopes by key: a hash table with open addressing that
// readers search without a lock while the one writer changes it. It costs the
// same at any size, and nothing on the heap.
type scopeTable struct {
	seed   maphash.Seed
	shards [shards]atomic.Pointer[shard]
}

// shard is at most half full, so that a search is short and ends.
type shard struct {
	cells []cell
	used  int // cells not vacant; the writer's
}

// cell pairs a hash with a scope. The scope is stored before the hash, and a
// reader that finds a hash compares the key, so it never takes one scope for
// another even if the cell changes in between.
type cell struct {
	hash  atomic.Uint64
	scope atomic.Pointer[scope]
}

// hash takes the namespace's part ready made, as a request looks up several
// identities in one namespace.
func (t *scopeTable) hash(key *scopeKey, namespace uint64) uint64 {
	h := maphash.String(t.seed, key.name) ^ namespace
	if key.group {
		h = ^h
	}
	if h < reservedHashes {
		h += reservedHashes
	}
	return h
}

func (t *scopeTable) hashNamespace(namespace string) uint64 {
	if namespace == "" {
		return 0
	}
	return bits.RotateLeft64(maphash.String(t.seed, namespace), 31)
}

// load returns the scope of a key, or nil.
func (t *scopeTable) load(key *scopeKey) *scope {
	return t.find(key, t.hashNamespace(key.namespace))
}

func (t *scopeTable) find(key *scopeKey, namespace uint64) *scope {
	h := t.hash(key, namespace)
	sh := t.shards[h%shards].Load()
	if sh == nil {
		return nil
	}
	mask := uint64(len(sh.cells) - 1)
	for i := h / shards; ; i++ {
		c := &sh.cells[i&mask]
		switch c.hash.Load() {
		case h:
			if s := c.scope.Load(); s != nil && s.key == *key {
				return s
			}
		case vacant:
			return nil
		}
	}
}

func (t *scopeTable) hashOf(s *scope) uint64 {
	return t.hash(&s.key, t.hashNamespace(s.key.namespace))
}

// insert adds a scope whose key is not there.
func (t *scopeTable) insert(s *scope) {
	h := t.hashOf(s)
	p := &t.shards[h%shards]
	sh := p.Load()
	if sh == nil || 2*(sh.used+1) > len(sh.cells) {
		sh = sh.rebuilt(t)
		sh.put(h, s)
		p.Store(sh)
		return
	}
	sh.put(h, s)
}

func (sh *shard) put(h uint64, s *scope) {
	mask := uint64(len(sh.cells) - 1)
	for i := h / shards; ; i++ {
		c := &sh.cells[i&mask]
		switch c.hash.Load() {
		case vacant:
			sh.used++
		case removed:
		default:
			continue
		}
		c.scope.Store(s)
		c.hash.Store(h)
		return
	}
}

// rebuilt returns a copy without removed cells, a quarter full at most.
func (sh *shard) rebuilt(t *scopeTable) *shard {
	var live []*scope
	if sh != nil {
		for i := range sh.cells {
			if s := sh.cells[i].scope.Load(); s != nil {
				live = append(live, s)
			}
		}
	}
	size := 8
	for size < 4*(len(live)+1) {
		size *= 2
	}
	fresh := &shard{cells: make([]cell, size)}
	for _, s := range live {
		fresh.put(t.hashOf(s), s)
	}
	return fresh
}

// remove takes out a scope that is there.
func (t *scopeTable) remove(s *scope) {
	h := t.hashOf(s)
	sh := t.shards[h%shards].Load()
	mask := uint64(len(sh.cells) - 1)
	for i := h / shards; ; i++ {
		c := &sh.cells[i&mask]
		if c.hash.Load() == h && c.scope.Load() == s {
			c.hash.Store(removed)
			c.scope.Store(nil)
			return
		}
	}
}
