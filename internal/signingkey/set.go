package signingkey

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	josejson "github.com/go-jose/go-jose/v4/json"
)

// Set is the keys that sign, at most one for each algorithm, and the public keys that are accepted. It never changes, so it is
// safe for concurrent use. To rotate keys, a KeySource returns another Set.
type Set struct {
	signers []*PrivateKey
	keys    []PublicKey
	byID    map[string][]PublicKey
	// thumbprints has the thumbprint of every key. Unlike IDs they are unique: another issuer may give two keys one name.
	thumbprints map[string]struct{}
	published   []PublicKey
	jwks        []byte
}

// NewSet is NewSetOf for at most one signer: signer may be nil.
func NewSet(signer *PrivateKey, accepted ...PublicKey) (*Set, error) {
	if signer == nil {
		return NewSetOf(nil, accepted...)
	}
	return NewSetOf([]*PrivateKey{signer}, accepted...)
}

// NewSetOf returns a set that signs with signers, the first by default, and accepts the public halves of signers and the keys
// in accepted. If accepted contains the public half of a signer, other programs sign with that key as well, and both forms
// of its ECDSA signatures are accepted (see PublicKey.Verify). Duplicates are dropped. The error is ErrNoKey if there is no
// key, ErrTooManyKeys if there are more than MaxKeys, and ErrTwoSigners if two signers have one algorithm.
func NewSetOf(signers []*PrivateKey, accepted ...PublicKey) (*Set, error) {
	var keys []PublicKey
	byAlgorithm := map[Algorithm]*PrivateKey{}
	for _, signer := range signers {
		if other := byAlgorithm[signer.Algorithm()]; other != nil {
			return nil, fmt.Errorf("%w, %s: %s and %s", ErrTwoSigners, signer.Algorithm(), other.ID(), signer.ID())
		}
		byAlgorithm[signer.Algorithm()] = signer
		own := signer.public
		own.lowS = !contains(accepted, own)
		keys = append(keys, own)
	}
	for _, k := range accepted {
		if k.key == nil {
			return nil, ErrUnsupportedKey
		}
		if !contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return newSet(slices.Clone(signers), keys)
}

// ErrTwoSigners reports that a set cannot decide which of two keys signs.
var ErrTwoSigners = errors.New("two signing keys for one algorithm")

func newSet(signers []*PrivateKey, keys []PublicKey) (*Set, error) {
	if len(keys) == 0 {
		return nil, ErrNoKey
	}
	if len(keys) > MaxKeys {
		return nil, ErrTooManyKeys
	}
	s := &Set{signers: signers, keys: keys, byID: map[string][]PublicKey{}, thumbprints: map[string]struct{}{}}
	for _, k := range keys {
		s.thumbprints[k.thumbprint] = struct{}{}
		s.byID[k.id] = append(s.byID[k.id], k)
		if !k.unpublished {
			s.published = append(s.published, k)
		}
	}
	var err error
	s.jwks, err = marshalJWKS(s.published)
	return s, err
}

// None returns the set without a key, for an authority whose keys have not been read yet. It signs nothing and accepts nothing.
func None() *Set { return &Set{jwks: []byte(`{"keys":[]}`)} }

// KeySource returns the key set in force. Issuer, verifier and publisher call Current at each use, so that they all see
// a change of the keys at once. Current must be cheap, safe for concurrent use, and never return nil.
type KeySource interface {
	Current() *Set
}

// Current returns s. It makes a Set the KeySource of keys that never change.
func (s *Set) Current() *Set { return s }

// Signer returns the key that signs with the algorithm, or nil. An empty alg means the default: the first of the signers.
func (s *Set) Signer(alg Algorithm) *PrivateKey {
	for _, signer := range s.signers {
		if alg == "" || signer.public.alg == alg {
			return signer
		}
	}
	return nil
}

// Signers returns the keys that sign, the default first.
func (s *Set) Signers() []*PrivateKey { return slices.Clone(s.signers) }

// Keys returns the accepted keys, those of the signers first.
func (s *Set) Keys() []PublicKey { return slices.Clone(s.keys) }

// Published returns the accepted keys that the JWKS has.
func (s *Set) Published() []PublicKey { return slices.Clone(s.published) }

// Find returns the keys that may have signed a token with this kid: all keys if kid is empty, else the keys with this ID
// or, if there are none, the keys without an ID from a JWKS. The caller must not change the result.
func (s *Set) Find(kid string) []PublicKey {
	if kid == "" {
		return s.keys
	}
	if named, ok := s.byID[kid]; ok {
		return named
	}
	return s.byID[""]
}

// Accepts reports whether the key is in the set, whatever its ID.
func (s *Set) Accepts(key PublicKey) bool {
	_, ok := s.thumbprints[key.thumbprint]
	return ok
}

// JWKS returns the published keys as a JSON Web Key Set (RFC 7517), each with use, alg and kid.
func (s *Set) JWKS() []byte { return bytes.Clone(s.jwks) }

func marshalJWKS(keys []PublicKey) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}} // not null if there is no key
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.key, KeyID: k.id, Algorithm: string(k.alg), Use: "sig"})
	}
	data, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("marshal key set: %w", err)
	}
	return data, nil
}

// ErrNotJWKS reports that a document is not a JSON Web Key Set.
var ErrNotJWKS = errors.New("not a JSON Web Key Set")

// ParseJWKS returns the key set of any issuer. The Set has no signer, and its keys keep their IDs. Keys that this package
// cannot use, or that are not for signatures, are skipped, as RFC 7517 section 5 requires. If no key is left, the error is
// ErrNoKey. data may have MaxFileSize bytes and MaxKeys keys.
func ParseJWKS(data []byte) (*Set, error) {
	if len(data) > MaxFileSize {
		return nil, ErrTooLarge
	}
	// go-jose's JSON is case-sensitive and refuses duplicate members.
	var doc struct {
		Keys []josejson.RawMessage `json:"keys"`
	}
	if err := josejson.Unmarshal(data, &doc); err != nil || doc.Keys == nil {
		return nil, ErrNotJWKS
	}
	if len(doc.Keys) > MaxKeys {
		return nil, ErrTooManyKeys
	}
	var keys []PublicKey
	for _, raw := range doc.Keys {
		if key, ok := parseJWK(raw); ok {
			keys = append(keys, key)
		}
	}
	return newSet(nil, keys)
}

func parseJWK(raw []byte) (PublicKey, bool) {
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(raw) != nil {
		return PublicKey{}, false
	}
	if jwk.Use != "" && jwk.Use != "sig" {
		return PublicKey{}, false
	}
	key, err := NewPublicKey(jwk.Key) // refuses what is no public key, or none that is valid
	if err != nil || (jwk.Algorithm != "" && jwk.Algorithm != string(key.alg)) {
		return PublicKey{}, false
	}
	key.id = jwk.KeyID
	return key, true
}
