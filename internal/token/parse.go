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

// MaxSize is the largest token issued or looked at, in bytes. A token of 100 audiences and long names has under 8 KiB.
const MaxSize = 16 << 10

// Why a token is refused. Texts are fit for the client and the log; where Kubernetes has words for the case they are
// used. An error may add detail to its sentinel, so compare with errors.Is.
var (
	// ErrNotJWT: no issuer can be read from it. It may be another kind of bearer token.
	ErrNotJWT = errors.New("not a signed JSON web token in compact form")
	// ErrForeignIssuer: a JWT of an issuer this verifier does not speak for.
	ErrForeignIssuer = errors.New("token is from another issuer")

	ErrTooLarge     = errors.New("token is larger than 16 KiB")
	ErrMalformed    = errors.New("token is malformed")
	ErrAlgorithm    = errors.New("token signature algorithm is not accepted")
	ErrUnknownKey   = errors.New("invalid signature, no keys found")
	ErrBadSignature = errors.New("invalid signature")
	ErrSubject      = errors.New("token subject does not match its service account claims")
	ErrExpired      = errors.New("service account token has expired")
	ErrNotYetValid  = errors.New("service account token is not valid yet")
	ErrAudience     = errors.New("token audiences are invalid for the target audiences")

	// The object has been removed, replaced by another of the same name, or deleted over DeletionGrace ago.
	ErrAccountGone = errors.New("service account token has been invalidated: service account is gone")
	ErrPodGone     = errors.New("service account token has been invalidated: bound pod is gone")
	ErrSecretGone  = errors.New("service account token has been invalidated: bound secret is gone")
	ErrNodeGone    = errors.New("service account token has been invalidated: bound node is gone")

	// ErrAnchorsStale: whether the objects still exist cannot be told now. The token may be good; it is refused.
	ErrAnchorsStale = errors.New("cannot tell whether the objects the token is bound to still exist")
)

// Foreign reports whether err says that the token was never meant for this verifier, so that other authenticators may
// look at it. Every other refusal is of a token that claims to be ours.
func Foreign(err error) bool {
	return errors.Is(err, ErrNotJWT) || errors.Is(err, ErrForeignIssuer)
}
