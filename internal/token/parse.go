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

// segment is the encoding of bytes in a JWS. Strict refuses trailing bits that are not zero, so each segment has only one
// encoding.
var segment = base64.RawURLEncoding.Strict()

// compact is a token that is split at its dots. Nothing is decoded.
type compact struct {
	header, payload, signature string
	// signed is the part that the signature covers: header, dot, payload.
	signed string
}

// split splits a token into its three segments. It refuses line breaks: base64 decoding skips them, so the same token
// would have many forms.
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

// unverified is a token of which nothing is verified.
type unverified struct {
	compact
	issuer string // the claim iss; not empty
	claims *Claims
	fault  error // the reason why claims is nil; nil otherwise. Only a caller with a signed token gets it.
}

// read splits a token and parses its claims. The claims are parsed once: the issuer is read alone only if they cannot be parsed.
func read(token string) (unverified, error) {
	parts, err := split(token)
	if err != nil {
		return unverified{}, err
	}
	payload, err := parts.decodePayload()
	if err != nil {
		return unverified{}, err
	}
	claims, fault := parseClaims(payload)
	if fault != nil {
		issuer, err := peekIssuer(payload)
		return unverified{compact: parts, issuer: issuer, fault: fault}, err
	}
	if claims.Issuer == "" {
		return unverified{}, ErrNotJWT
	}
	return unverified{compact: parts, issuer: claims.Issuer, claims: claims}, nil
}

// peekIssuer returns the claim iss of a payload with other claims that cannot be parsed: a token of another issuer may have such
// claims. The error is ErrNotJWT if there is no issuer.
func peekIssuer(payload []byte) (string, error) {
	var peek struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &peek) != nil || peek.Issuer == "" {
		return "", ErrNotJWT
	}
	return peek.Issuer, nil
}

// header has the members of a JWS header that are used, and those that must not be present.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`

	Critical   json.RawMessage `json:"crit"`
	Unencoded  json.RawMessage `json:"b64"`
	Encryption json.RawMessage `json:"enc"`
	Zip        json.RawMessage `json:"zip"`
}

// parseHeader ignores jwk, jku, x5c and x5u, so a token cannot bring its own key.
func (c compact) parseHeader() (header, error) {
	var h header
	data, err := segment.DecodeString(c.header)
	if err != nil || !utf8.Valid(data) || json.Unmarshal(data, &h) != nil {
		return header{}, fmt.Errorf("%w: header cannot be read", ErrMalformed)
	}
	if h.Critical != nil || h.Unencoded != nil || h.Encryption != nil || h.Zip != nil {
		return header{}, fmt.Errorf("%w: header requires an extension that is not supported", ErrMalformed)
	}
	return h, nil
}

// verifySignature returns the key that signed the token. A key is used only for its own algorithm, whatever the header contains,
// so neither the algorithm none nor an HMAC over a public key is accepted. holds returns whether the key is known to have signed
// the token; nil if that is not known of any key.
func (c compact) verifySignature(keys *signingkey.Set, holds func(signingkey.PublicKey) bool) (signingkey.PublicKey, error) {
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
	return tryKeys(keys.Find(h.KeyID), h, func(key signingkey.PublicKey) bool {
		return holds != nil && holds(key) || key.Verify([]byte(c.signed), signature) == nil
	})
}

func tryKeys(keys []signingkey.PublicKey, h header, verify func(signingkey.PublicKey) bool) (signingkey.PublicKey, error) {
	refusal := ErrUnknownKey
	for _, key := range keys {
		if string(key.Algorithm()) != h.Algorithm {
			if h.KeyID != "" && errors.Is(refusal, ErrUnknownKey) {
				refusal = ErrAlgorithm
			}
			continue
		}
		if verify(key) {
			return key, nil
		}
		refusal = ErrBadSignature
	}
	return signingkey.PublicKey{}, refusal
}

// MaxSize is the limit for a token, in bytes. A token with 100 audiences and long names has less than 8 KiB.
const MaxSize = 16 << 10

// Reasons why a token is refused. The texts may be shown to the client and logged. They are Kubernetes' own texts where
// Kubernetes has one. Errors may add detail to a sentinel, so compare with errors.Is.
var (
	// ErrNotJWT: the text has no readable issuer. It may be another kind of bearer token.
	ErrNotJWT = errors.New("not a signed JSON web token in compact form")
	// ErrForeignIssuer: the token is a JWT of an issuer that is not one of the verifier's.
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

	// The object was removed, replaced by another object of the same name, or marked for deletion more than DeletionGrace ago.
	ErrAccountGone = errors.New("service account token has been invalidated: service account is gone")
	ErrPodGone     = errors.New("service account token has been invalidated: bound pod is gone")
	ErrSecretGone  = errors.New("service account token has been invalidated: bound secret is gone")
	ErrNodeGone    = errors.New("service account token has been invalidated: bound node is gone")

	// ErrAnchorsStale: it is unknown now whether the objects still exist. The token is refused, although it may be valid.
	ErrAnchorsStale = errors.New("it is not known now whether the objects the token is bound to still exist")

	// ErrUnrecorded: the ledger has no record of the token. This issuer did not issue it, although one of its keys signed it.
	ErrUnrecorded = errors.New("service account token was not issued by this server")
	ErrRevoked    = errors.New("service account token has been revoked")
	// ErrLedgerStale: it is unknown now whether the token was issued and not revoked. The token is refused, although it may be
	// valid.
	ErrLedgerStale = errors.New("it is not known now whether the token has been issued and not revoked")
)

// Undecided reports whether err means that the token can be neither accepted nor refused now.
func Undecided(err error) bool {
	return errors.Is(err, ErrAnchorsStale) || errors.Is(err, ErrLedgerStale)
}

// Foreign reports whether err means that the token is not one of this verifier's issuers, so that other authenticators
// may check it.
func Foreign(err error) bool {
	return errors.Is(err, ErrNotJWT) || errors.Is(err, ErrForeignIssuer)
}
