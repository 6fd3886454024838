package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"lanyard.dev/internal/signingkey"
)

// ClockSkew is how far ahead of the verifier's clock `nbf` and `iat` may lie. There is no such leeway for `exp`.
const ClockSkew = time.Minute

const (
	// confirmedFor is how long a refusal that storage has confirmed is not confirmed again. It could be for ever, since
	// no UID comes back, except by a restored backup. It bounds what a token that does not hold any more can cost.
	confirmedFor = 10 * time.Second
	// confirmTimeout bounds one confirmation.
	confirmTimeout = 5 * time.Second
)

// VerifierConfig wires a Verifier. Everything but CacheSize and Stored is required.
type VerifierConfig struct {
	// Issuers are the `iss` values accepted, compared exactly.
	Issuers []string
	Keys    signingkey.KeySource
	Anchors Anchors
	// Stored answers from storage itself; nil where Anchors knows every write at once. It is asked about what Anchors
	// refuses: another process may have made the object a moment ago, or made it anew under its name.
	Stored Anchors
	Clock  clock.PassiveClock
	// CacheSize is how many tokens' facts are kept; 0 means DefaultCacheSize.
	CacheSize int
}

// Verifier tells whose a token is. It is safe for concurrent use.
type Verifier struct {
	issuers []string
	keys    signingkey.KeySource
	anchors Anchors
	stored  Anchors // or nil
	clock   clock.PassiveClock
	cache   *factsCache
	// confirming lets the same token be asked about in storage by one caller at a time. A caller that joins holds the
	// token, so what the token is bound to was there before the call began, and a refusal is right for it too.
	confirming singleflight.Group
}

// facts are what cannot change about a token: that this key signed these bytes, and what they claim. When storage last
// said that the token does not hold any more is kept with them.
type facts struct {
	digest   digest
	key      signingkey.PublicKey
	identity Identity // Audiences is empty
	gone     atomic.Pointer[time.Time]
}

// NewVerifier refuses a config with a part missing.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	if len(c.Issuers) == 0 || slices.Contains(c.Issuers, "") {
		return nil, errors.New("token verifier: an issuer is missing")
	}
	if c.Keys == nil || c.Anchors == nil || c.Clock == nil {
		return nil, errors.New("token verifier: keys, anchors or clock are missing")
	}
	if c.CacheSize <= 0 {
		c.CacheSize = DefaultCacheSize
	}
	return &Verifier{
		issuers: slices.Clone(c.Issuers), keys: c.Keys, anchors: c.Anchors, stored: c.Stored, clock: c.Clock,
		cache: newFactsCache(c.CacheSize),
	}, nil
}

// Verify returns who holds the token, if it is good now for at least one of the audiences. With no audiences it is good
// for none: the caller says which it stands for. The error is one of this package's sentinels, with detail.
func (v *Verifier) Verify(ctx context.Context, token string, audiences []string) (Identity, error) {
	f, err := v.facts(token)
	if err != nil {
		return Identity{}, err
	}
	return v.admit(ctx, f, audiences)
}

// facts returns what is known of the token, establishing it first if need be. Failures are not cached: they would let
// anyone fill the cache, and a key unknown now may be known soon.
func (v *Verifier) facts(token string) (*facts, error) {
	if len(token) > MaxSize {
		return nil, ErrTooLarge
	}
	key := sha256.Sum256([]byte(token))
	if f := v.cache.get(&key); f != nil {
		return f, nil
	}
	f, err := v.establish(token)
	if err != nil {
		return nil, err
	}
	f.digest = key
	v.cache.put(&key, f)
	return f, nil
}

func (v *Verifier) establish(token string) (*facts, error) {
	parts, err := split(token)
	if err != nil {
		return nil, err
	}
	payload, err := parts.decodePayload()
	if err != nil {
		return nil, err
	}
	issuer, err := peekIssuer(payload)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(v.issuers, issuer) {
		return nil, ErrForeignIssuer
	}
	key, err := parts.verifySignature(v.keys.Current())
	if err != nil {
		return nil, err
	}
	claims, err := parseClaims(payload)
	if err != nil {
		return nil, err
	}
	if err := claims.validate(); err != nil {
		return nil, err
	}
	return &facts{key: key, identity: newIdentity(claims)}, nil
}

// admit checks what may have changed since the facts were established. Nothing it finds is remembered.
func (v *Verifier) admit(ctx context.Context, f *facts, audiences []string) (Identity, error) {
	claims := f.identity.Claims
	if !v.keys.Current().Accepts(f.key) {
		return Identity{}, ErrUnknownKey
	}
	now := v.clock.Now()
	if err := claims.checkTimes(now); err != nil {
		return Identity{}, err
	}
	id := f.identity
	if id.Audiences = intersect(claims.Audience, audiences); id.Audiences == nil {
		return Identity{}, fmt.Errorf("%w: token has %q, want one of %q", ErrAudience, []string(claims.Audience), audiences)
	}
	err := checkAnchors(ctx, v.anchors, claims.Kubernetes, now)
	if err != nil && v.stored != nil && !errors.Is(err, ErrAnchorsStale) {
		err = v.confirm(ctx, f, err)
	}
	if err != nil {
		return Identity{}, err
	}
	return id, nil
}

// confirm asks storage about a token that v.anchors refuses. It returns the refusal where storage has confirmed one not
// long ago, and ErrAnchorsStale where storage does not answer.
func (v *Verifier) confirm(ctx context.Context, f *facts, refusal error) error {
	if at := f.gone.Load(); at != nil && v.clock.Since(*at) < confirmedFor {
		return refusal
	}
	// What a call found that had begun before may have been deleted since, and the deletion been answered. The next call
	// begins after this caller came, whoever makes it.
	joined, err := v.askStored(ctx, f)
	if joined && err == nil {
		_, err = v.askStored(ctx, f)
	}
	return err
}

// askStored checks the token's anchors in storage. joined says that another caller's call, under way already, did.
func (v *Verifier) askStored(ctx context.Context, f *facts) (joined bool, err error) {
	own := false // written before the answer
	answer := v.confirming.DoChan(string(f.digest[:]), func() (any, error) {
		own = true
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmTimeout)
		defer cancel()
		now := v.clock.Now()
		err := checkAnchors(ctx, v.stored, f.identity.Claims.Kubernetes, now)
		if err != nil && !errors.Is(err, ErrAnchorsStale) {
			f.gone.Store(&now)
		}
		return nil, err
	})
	select {
	case result := <-answer:
		return !own, result.Err
	case <-ctx.Done():
		return false, fmt.Errorf("%w: %w", ErrAnchorsStale, context.Cause(ctx))
	}
}

// checkTimes refuses a token from the second of its expiry on (RFC 7519 section 4.1.4).
func (c *Claims) checkTimes(now time.Time) error {
	if now.Unix() >= c.Expiry {
		return ErrExpired
	}
	if latest := now.Add(ClockSkew).Unix(); c.NotBefore > latest || c.IssuedAt > latest {
		return ErrNotYetValid
	}
	return nil
}

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
