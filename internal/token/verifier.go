package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/utils/clock"

	"lanyard.dev/internal/signingkey"
)

// ClockSkew is how far ahead of the verifier's clock `nbf` and `iat` may lie. There is no such leeway for `exp`.
const ClockSkew = time.Minute

// VerifierConfig wires a Verifier. Everything but CacheSize is required.
type VerifierConfig struct {
	// Issuers are the `iss` values accepted, compared exactly.
	Issuers []string
	Keys    KeySource
	Anchors Anchors
	Clock   clock.PassiveClock
	// CacheSize is how many tokens' facts are kept; 0 means DefaultCacheSize.
	CacheSize int
}

// Verifier tells whose a token is. It is safe for concurrent use.
type Verifier struct {
	issuers []string
	keys    KeySource
	anchors Anchors
	clock   clock.PassiveClock
	cache   *factsCache
}

// facts are what cannot change about a token: that this key signed these bytes, and what they claim.
type facts struct {
	key      signingkey.PublicKey
	identity Identity // Audiences is empty
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
		issuers: slices.Clone(c.Issuers), keys: c.Keys, anchors: c.Anchors, clock: c.Clock,
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
	if err := checkAnchors(ctx, v.anchors, claims.Kubernetes, now); err != nil {
		return Identity{}, err
	}
	return id, nil
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
