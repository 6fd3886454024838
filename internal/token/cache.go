package token

import (
	"crypto/sha256"

	"k8s.io/utils/lru"
)

// digest is the key of a token in the cache. Unlike the token it is no credential, so the cache holds none.
type digest = [sha256.Size]byte

const (
	shardCount = 16
	// DefaultCacheSize is the number of tokens whose facts a Verifier keeps, at 1 to 2 KiB each.
	DefaultCacheSize = 8192
)

// factsCache keeps the facts of the most recently used tokens. It is divided by digest, so that concurrent callers
// seldom wait for the same lock.
type factsCache [shardCount]*lru.Cache

// newFactsCache returns a cache of about size entries, at least one in each shard.
func newFactsCache(size int) *factsCache {
	c := new(factsCache)
	for i := range c {
		c[i] = lru.New(max(1, size/shardCount))
	}
	return c
}

func (c *factsCache) get(key *digest) *facts {
	f, ok := c[key[0]%shardCount].Get(*key)
	if !ok {
		return nil
	}
	return f.(*facts)
}

func (c *factsCache) put(key *digest, f *facts) { c[key[0]%shardCount].Add(*key, f) }
