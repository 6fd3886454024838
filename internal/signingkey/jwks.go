package signingkey

import (
	"errors"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

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
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &doc); err != nil || doc.Keys == nil {
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
