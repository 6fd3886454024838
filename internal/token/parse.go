package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"

	"lanyard.dev/internal/signingkey"
)

// segment is how JWS writes bytes. Strict refuses non-zero trailing bits, so a segment has one spelling only.
var segment = base64.RawURLEncoding.Strict()

// compact is a token cut at its dots, nothing decoded.
type compact struct {
	header, payload, signature string
	// signed is what the signature covers: header, dot, payload.
	signed string
}

// split refuses what is not three segments. Line breaks are refused here, because base64 decoding skips them and the
// same token would have many spellings.
func split(token string) (compact, error) {
	if len(token) > MaxSize {
		return compact{}, ErrTooLarge
	}
	header, rest, ok := strings.Cut(token, ".")
	if !ok || header == "" || strings.ContainsAny(token, "\r\n") {
		return compact{}, ErrNotJWT
	}
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok || payload == "" || strings.Contains(signature, ".") {
		return compact{}, ErrNotJWT
	}
	return compact{header, payload, signature, token[:len(header)+1+len(payload)]}, nil
}

func (c compact) decodePayload() ([]byte, error) {
	payload, err := segment.DecodeString(c.payload)
	if err != nil {
		return nil, ErrNotJWT
	}
	return payload, nil
}

// peekIssuer reads `iss` and nothing else, before any signature is looked at, so that a foreign token costs little. A
// payload it cannot read has no issuer.
func peekIssuer(payload []byte) (string, error) {
	var peek struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &peek) != nil || peek.Issuer == "" {
		return "", ErrNotJWT
	}
	return peek.Issuer, nil
}

// header holds the members that matter, and those whose mere presence means that the token is not what it seems.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`

	Critical   json.RawMessage `json:"crit"`
	Unencoded  json.RawMessage `json:"b64"`
	Encryption json.RawMessage `json:"enc"`
	Zip        json.RawMessage `json:"zip"`
}

// parseHeader never looks at jwk, jku, x5c or x5u: a token cannot bring its own key.
func (c compact) parseHeader() (header, error) {
	var h header
	data, err := segment.DecodeString(c.header)
	if err != nil || !utf8.Valid(data) || json.Unmarshal(data, &h) != nil {
		return header{}, fmt.Errorf("%w: header cannot be read", ErrMalformed)
	}
	if h.Critical != nil || h.Unencoded != nil || h.Encryption != nil || h.Zip != nil {
		return header{}, fmt.Errorf("%w: header asks for an extension that is not supported", ErrMalformed)
	}
	return h, nil
}

// verifySignature returns the key that signed the token. A key is used for its own algorithm only, whatever the header
// says, so neither `none` nor an HMAC over a public key can pass.
func (c compact) verifySignature(keys *signingkey.Set) (signingkey.PublicKey, error) {
	h, err := c.parseHeader()
	if err != nil {
		return signingkey.PublicKey{}, err
	}
	switch signingkey.Algorithm(h.Algorithm) {
	case signingkey.ES256, signingkey.ES384, signingkey.ES512, signingkey.RS256:
	default:
		return signingkey.PublicKey{}, ErrAlgorithm
	}
	signature, err := segment.DecodeString(c.signature)
	if err != nil {
		return signingkey.PublicKey{}, fmt.Errorf("%w: signature is not base64url", ErrMalformed)
	}
	return tryKeys(keys.Find(h.KeyID), h, []byte(c.signed), signature)
}

func tryKeys(keys []signingkey.PublicKey, h header, signed, signature []byte) (signingkey.PublicKey, error) {
	refusal := ErrUnknownKey
	for _, key := range keys {
		if string(key.Algorithm()) != h.Algorithm {
			if h.KeyID != "" && errors.Is(refusal, ErrUnknownKey) {
				refusal = ErrAlgorithm
			}
			continue
		}
		if key.Verify(signed, signature) == nil {
			return key, nil
		}
		refusal = ErrBadSignature
	}
	return signingkey.PublicKey{}, refusal
}
