package token

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	josejson "github.com/go-jose/go-jose/v4/json"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/signingkey"
)

// Decoded is what a token says about itself. Nothing in it has been verified.
type Decoded struct {
	// Header and Payload are the JSON objects in the token. Their strings may hold any Unicode text, so a terminal must
	// not see them unescaped.
	Header, Payload json.RawMessage
	// Claims are those of Payload this package knows, or nil if one of them has an unexpected form.
	Claims *Claims
}

// Decode reads a token of any issuer and algorithm and verifies nothing. It never returns the signature. Errors:
// ErrNotJWT, ErrTooLarge.
func Decode(token string) (*Decoded, error) {
	parts, err := split(token)
	if err != nil {
		return nil, err
	}
	d := new(Decoded)
	if d.Header, err = decodeObject(parts.header); err != nil {
		return nil, err
	}
	if d.Payload, err = decodeObject(parts.payload); err != nil {
		return nil, err
	}
	if claims, err := parseClaims(d.Payload); err == nil {
		d.Claims = claims
	}
	return d, nil
}

// decodeObject refuses anything but one JSON object without duplicate members.
func decodeObject(text string) (json.RawMessage, error) {
	data, err := segment.DecodeString(text)
	if err != nil || !utf8.Valid(data) {
		return nil, ErrNotJWT
	}
	var members map[string]josejson.RawMessage
	if josejson.Unmarshal(data, &members) != nil || members == nil {
		return nil, ErrNotJWT
	}
	return data, nil
}

// Expected is what VerifyOffline holds a token against.
type Expected struct {
	// Issuer must equal `iss`. Empty accepts any issuer: only right if the keys can be none but the right issuer's.
	Issuer string
	// Audiences must share an entry with `aud`. Empty accepts any audience.
	Audiences []string
	Clock     clock.PassiveClock
}

// VerifyOffline verifies what can be verified with an issuer's public keys alone: signature, issuer, times and audience.
// It cannot know whether the account and the bound objects still exist. It takes tokens of any OpenID issuer; claims
// about a service account, if there are any, must agree with the subject.
func VerifyOffline(token string, keys *signingkey.Set, want Expected) (*Claims, error) {
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
	if want.Issuer != "" && issuer != want.Issuer {
		return nil, fmt.Errorf("%w: want %q", ErrForeignIssuer, want.Issuer)
	}
	if _, err := parts.verifySignature(keys); err != nil {
		return nil, err
	}
	claims, err := parseClaims(payload)
	if err != nil {
		return nil, err
	}
	if err := claims.meet(want); err != nil {
		return nil, err
	}
	return claims, nil
}

func (c *Claims) meet(want Expected) error {
	if c.Kubernetes != nil {
		if err := c.validate(); err != nil {
			return err
		}
	}
	if c.Expiry == 0 {
		return fmt.Errorf("%w: it has no expiry", ErrMalformed)
	}
	switch err := c.checkTimes(want.Clock.Now()); err {
	case nil:
	case ErrExpired:
		return fmt.Errorf("%w: at %s", err, c.ExpiresAt().UTC().Format(time.RFC3339))
	default:
		return fmt.Errorf("%w: it is from %s", err, time.Unix(max(c.NotBefore, c.IssuedAt), 0).UTC().Format(time.RFC3339))
	}
	if len(want.Audiences) > 0 && !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(want.Audiences, a) }) {
		return fmt.Errorf("%w: token has %q, want one of %q", ErrAudience, []string(c.Audience), want.Audiences)
	}
	return nil
}
