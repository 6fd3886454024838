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

// Set is one signer, if any, and the public keys accepted. It never changes, so it is safe for concurrent use; to
// rotate is to put another Set in its place.
type Set struct {
	signer *PrivateKey
	keys   []PublicKey
	byID   map[string][]PublicKey
	// thumbprints tells keys apart by what they are: a foreign issuer may give two keys one name.
	thumbprints map[string]struct{}
	jwks        []byte
}

// NewSet makes a set that signs with signer, which may be nil, and accepts its public half and the keys given.
// Listing the signer's public half says that others sign with it as well: then both forms of its ECDSA signatures are
// accepted (see PublicKey.Verify). Duplicates are dropped. A set without any key is refused with ErrNoKey, one of over MaxKeys with ErrTooManyKeys.
func NewSet(signer *PrivateKey, accepted ...PublicKey) (*Set, error) {
	var keys []PublicKey
	if signer != nil {
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
	return newSet(signer, keys)
}

func newSet(signer *PrivateKey, keys []PublicKey) (*Set, error) {
	if len(keys) == 0 {
		return nil, ErrNoKey
	}
	if len(keys) > MaxKeys {
		return nil, ErrTooManyKeys
	}
	jwks, err := marshalJWKS(keys)
	if err != nil {
		return nil, err
	}
	s := &Set{signer: signer, keys: keys, byID: map[string][]PublicKey{}, thumbprints: map[string]struct{}{}, jwks: jwks}
	for _, k := range keys {
		s.thumbprints[k.thumbprint] = struct{}{}
		s.byID[k.id] = append(s.byID[k.id], k)
	}
	return s, nil
}

// KeySource returns the key set in force. Issuer, verifier and publisher call Current at each use, so that they all see
// a change of the keys at once. Current must be cheap, safe for concurrent use, and never return nil.
type KeySource interface {
	Current() *Set
}

// Current returns s. It makes a Set the KeySource of keys that never change.
func (s *Set) Current() *Set { return s }

// Signer returns the key that signs, or nil.
func (s *Set) Signer() *PrivateKey { return s.signer }

// Keys returns the keys accepted, the signer's first.
func (s *Set) Keys() []PublicKey { return slices.Clone(s.keys) }

// Find returns the keys a token with this `kid` may be signed with: all, if it has none; else those of that name, or
// failing those the ones a foreign JWKS gave no name. The caller must not change the result.
func (s *Set) Find(kid string) []PublicKey {
	if kid == "" {
		return s.keys
	}
	if named, ok := s.byID[kid]; ok {
		return named
	}
	return s.byID[""]
}

// Accepts reports whether this very key is in the set, whatever its name.
func (s *Set) Accepts(key PublicKey) bool {
	_, ok := s.thumbprints[key.thumbprint]
	return ok
}

// JWKS returns the accepted keys as a JSON Web Key Set (RFC 7517): public halves only, each with use, alg and kid.
func (s *Set) JWKS() []byte { return bytes.Clone(s.jwks) }

func marshalJWKS(keys []PublicKey) ([]byte, error) {
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.key, KeyID: k.id, Algorithm: string(k.alg), Use: "sig"})
	}
	data, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("marshal key set: %w", err)
	}
	return data, nil
}

// ErrNotJWKS says that a document is not a JSON Web Key Set.
var ErrNotJWKS = errors.New("not a JSON Web Key Set")

// ParseJWKS reads the key set of any issuer, for verification only: the Set has no signer. Names are kept as given.
// Keys this package cannot use, and keys not meant for signatures, are passed over as RFC 7517 section 5 asks; if none
// is left the error is ErrNoKey. Input over MaxFileSize bytes or MaxKeys keys is refused.
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
