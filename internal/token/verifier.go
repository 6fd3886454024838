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

// ClockSkew is how far nbf and iat may be ahead of the verifier's clock. There is no leeway for exp.
const ClockSkew = time.Minute

const (
	// confirmedFor is the time for which a refusal is not confirmed again once storage has confirmed it. This limits the
	// cost of a token that is no longer valid. A UID returns only if a backup is restored, so longer would be safe too.
	confirmedFor = 10 * time.Second
	// confirmTimeout is the deadline of one confirmation.
	confirmTimeout = 5 * time.Second
)

// Ledger knows which tokens were issued and which of them were revoked. Like Anchors, it is called on every verification.
type Ledger interface {
	// Check returns nil for a token that was issued and not revoked, and otherwise an error that wraps ErrUnrecorded, ErrRevoked or
	// ErrLedgerStale. digest is the SHA-256 of the token, since whoever has a key can copy the jti of a token that was issued. A
	// revoked token is refused from the moment when its revocation has been acknowledged.
	Check(ctx context.Context, jti string, digest *[sha256.Size]byte) error
}

// VerifierConfig configures a Verifier. All fields except CacheSize, Signatures and Stored are required.
type VerifierConfig struct {
	// Issuers are the accepted values of iss. They are compared exactly.
	Issuers []string
	Keys    signingkey.KeySource
	Anchors Anchors
	// Stored reads from storage itself; nil if Anchors knows of every write at once. If Anchors refuses a token, Stored is
	// queried too, because another process may have created the object a moment ago, or created it again under its name.
	Stored Anchors
	Ledger Ledger
	Clock  clock.PassiveClock
	// Signatures remembers which signatures hold. It may be shared with the signer of this process. If it is nil, the
	// signature of a token that is no longer in the cache is verified again.
	Signatures *Signatures
	// CacheSize is the number of tokens whose facts are kept; 0 means DefaultCacheSize.
	CacheSize int
}

// Verifier verifies tokens and returns the identities of their bearers. It is safe for concurrent use.
type Verifier struct {
	issuers    []string
	keys       signingkey.KeySource
	anchors    Anchors
	stored     Anchors // or nil
	ledger     Ledger
	clock      clock.PassiveClock
	cache      *factsCache
	signatures *Signatures // or nil
	// confirming lets one caller at a time check a token in storage. A refusal is right for a caller that joins, too: it
	// has the token, so the objects that the token is bound to existed before that check began.
	confirming singleflight.Group
}

// facts are what cannot change about a token: which key signed it, and its claims.
type facts struct {
	digest   digest
	key      signingkey.PublicKey
	identity Identity // Audiences is empty
	// refusedAt is when storage last confirmed that the token is no longer valid; nil for never.
	refusedAt atomic.Pointer[time.Time]
}

// NewVerifier returns an error if a required part of the config is missing.
func NewVerifier(c VerifierConfig) (*Verifier, error) {
	if len(c.Issuers) == 0 || slices.Contains(c.Issuers, "") {
		return nil, errors.New("token verifier: an issuer is missing")
	}
	if c.Keys == nil || c.Anchors == nil || c.Ledger == nil || c.Clock == nil {
		return nil, errors.New("token verifier: keys, anchors, ledger or clock are missing")
	}
	if c.CacheSize <= 0 {
		c.CacheSize = DefaultCacheSize
	}
	return &Verifier{
		issuers: slices.Clone(c.Issuers), keys: c.Keys, anchors: c.Anchors, stored: c.Stored, ledger: c.Ledger, clock: c.Clock,
		cache: newFactsCache(c.CacheSize), signatures: c.Signatures,
	}, nil
}

// Verify returns the identity of the token's bearer, if the token is valid now for at least one of the audiences. It
// returns ErrAudience if audiences is empty. The error wraps one of this package's sentinels.
func (v *Verifier) Verify(ctx context.Context, token string, audiences []string) (Identity, error) {
	f, err := v.facts(token)
	if err != nil {
		return Identity{}, err
	}
	return v.check(ctx, f, audiences)
}

// facts returns the facts of a token, from the cache if they are there. Failures are not cached: otherwise anybody could
// fill the cache, and a key that is unknown now may be added soon.
func (v *Verifier) facts(token string) (*facts, error) {
	if len(token) > MaxSize {
		return nil, ErrTooLarge
	}
	key := sha256.Sum256([]byte(token))
	if f := v.cache.get(&key); f != nil {
		return f, nil
	}
	f, err := v.establish(token, &key)
	if err != nil {
		return nil, err
	}
	v.cache.put(&key, f)
	return f, nil
}

func (v *Verifier) establish(token string, digest *digest) (*facts, error) {
	t, err := read(token)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(v.issuers, t.issuer) {
		return nil, ErrForeignIssuer
	}
	known := false
	key, err := t.verifySignature(v.keys.Current(), func(key signingkey.PublicKey) bool {
		known = v.signatures.has(digest, key)
		return known
	})
	if err != nil {
		return nil, err
	}
	if !known {
		v.signatures.add(digest, key)
	}
	if t.fault != nil {
		return nil, t.fault
	}
	if err := t.claims.validate(); err != nil {
		return nil, err
	}
	t.claims.KeyID = key.ID()
	return &facts{digest: *digest, key: key, identity: newIdentity(t.claims)}, nil
}

// check checks what may have changed since the facts were established. Its result is not cached.
func (v *Verifier) check(ctx context.Context, f *facts, audiences []string) (Identity, error) {
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
	if err == nil {
		err = v.ledger.Check(ctx, claims.ID, &f.digest)
	}
	if err != nil {
		return Identity{}, err
	}
	return id, nil
}

// confirm checks in storage a token that v.anchors refuses. It returns the refusal if storage confirmed one less than
// confirmedFor ago, and ErrAnchorsStale if storage does not answer.
func (v *Verifier) confirm(ctx context.Context, f *facts, refusal error) error {
	if at := f.refusedAt.Load(); at != nil && v.clock.Since(*at) < confirmedFor {
		return refusal
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrAnchorsStale, err) // nobody would wait for the answer
	}
	// A check that began before this call may have found an object that was deleted since, before this call. Any further
	// check begins after this call.
	joined, err := v.checkStored(ctx, f)
	if joined && err == nil {
		_, err = v.checkStored(ctx, f)
	}
	return err
}

// checkStored checks the token's anchors in storage. joined reports that another caller had begun the check.
func (v *Verifier) checkStored(ctx context.Context, f *facts) (joined bool, err error) {
	own := false // written before answer receives
	answer := v.confirming.DoChan(string(f.digest[:]), func() (any, error) {
		own = true
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmTimeout)
		defer cancel()
		now := v.clock.Now()
		err := checkAnchors(ctx, v.stored, f.identity.Claims.Kubernetes, now)
		if err != nil && !errors.Is(err, ErrAnchorsStale) {
			f.refusedAt.Store(&now)
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
