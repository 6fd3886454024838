package token

import (
	"crypto/sha256"
	"sync"
)

// digest names a token without being one: whoever reads the process's memory finds no token in the cache.
type digest = [sha256.Size]byte

const (
	shardCount = 16
	// DefaultCacheSize is how many tokens' facts a Verifier keeps, at 1 to 2 KiB each.
	DefaultCacheSize = 8192
)

// factsCache keeps the most recently used facts. Shards keep callers out of each other's way.
type factsCache struct {
	shards [shardCount]shard
}

type shard struct {
	mu    sync.Mutex
	max   int
	items map[digest]*node
	// root closes the ring: root.next is the most, root.prev the least recently used.
	root node
}

type node struct {
	key        digest
	facts      *facts
	prev, next *node
}

// newFactsCache holds about size entries, at least one in each shard.
func newFactsCache(size int) *factsCache {
	c := new(factsCache)
	for i := range c.shards {
		s := &c.shards[i]
		s.max = max(1, size/shardCount)
		s.items = make(map[digest]*node)
		s.root.prev, s.root.next = &s.root, &s.root
	}
	return c
}

func (c *factsCache) get(key *digest) *facts {
	s := &c.shards[key[0]%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.items[*key]
	if n == nil {
		return nil
	}
	if s.root.next != n {
		n.unlink()
		s.pushFront(n)
	}
	return n.facts
}

func (c *factsCache) put(key *digest, f *facts) {
	s := &c.shards[key[0]%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items[*key] != nil { // two callers established the same facts
		return
	}
	if len(s.items) >= s.max {
		last := s.root.prev
		last.unlink()
		delete(s.items, last.key)
	}
	n := &node{key: *key, facts: f}
	s.items[*key] = n
	s.pushFront(n)
}

func (s *shard) pushFront(n *node) {
	n.prev, n.next = &s.root, s.root.next
	n.prev.next, n.next.prev = n, n
}

func (n *node) unlink() {
	n.prev.next, n.next.prev = n.next, n.prev
}
