package rbac

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

const (
	// shards is the number of hash tables. A table that grows copies only its own scopes: 1,600 of 100,000.
	shards = 64
	// vacant and removed are hashes that no key has. A cell that was never used is vacant and ends a search; a cell whose
	// scope was removed does not.
	vacant, removed = 0, 1
	reservedHashes  = 2
)

// scopeTable finds scopes by key. It is a hash table with open addressing. Readers search it without a lock while a single
// writer changes it. The cost of a search does not depend on the size, and it allocates nothing.
type scopeTable struct {
	seed   maphash.Seed
	shards [shards]atomic.Pointer[shard]
}

// shard is a table that is at most half full, so a search is short and always ends.
type shard struct {
	cells []cell
	used  int // number of cells that are not vacant; only the writer uses it
}

// cell is a scope with its hash. The writer stores the scope before the hash. A reader that finds a hash compares the key
// too, so it gets the right scope even if the cell changes meanwhile.
type cell struct {
	hash  atomic.Uint64
	scope atomic.Pointer[scope]
}

// hash returns the hash of a key. namespace is the hash of its namespace, which a request computes once for all identities.
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

// insert adds a scope. The table must not contain its key.
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

// rebuilt returns a copy without removed cells that is at most a quarter full.
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

// remove removes a scope, which the table must contain.
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
