package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	josejson "github.com/go-jose/go-jose/v4/json"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/signingkey"
)

// Decoded is the content of a token. Nothing in it is verified.
type Decoded struct {
	// Header and Payload are the JSON objects in the token. Their strings may contain any Unicode text: escape them before
	// they are printed to a terminal.
	Header, Payload json.RawMessage
	// Claims are the claims in Payload that this package knows, or nil if one of them has an unexpected form.
	Claims *Claims
	// SignatureFault is the reason why the third part cannot be a signature, or empty.
	SignatureFault string
}

// Decode decodes a token of any issuer and algorithm and verifies nothing. It does not return the signature. The error is
// ErrTooLarge, or ErrNotJWT with the part that cannot be read.
func Decode(token string) (*Decoded, error) {
	parts, err := split(token)
	if errors.Is(err, ErrNotJWT) {
		return nil, notJWT("%s", malformation(token))
	}
	if err != nil {
		return nil, err
	}
	d := new(Decoded)
	if d.Header, err = decodeObject(parts.header, "its first part, the header,"); err != nil {
		return nil, err
	}
	if d.Payload, err = decodeObject(parts.payload, "its second part, the claims,"); err != nil {
		return nil, err
	}
	if claims, err := parseClaims(d.Payload); err == nil {
		d.Claims = claims
	}
	if _, err := segment.DecodeString(parts.signature); err != nil {
		d.SignatureFault = "its third part, the signature, is not base64url"
	} else if parts.signature == "" {
		d.SignatureFault = "its third part, the signature, is empty"
	}
	return d, nil
}

// notJWT returns ErrNotJWT with a reason. The reason must not contain any part of the token.
func notJWT(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrNotJWT}, args...)...)
}

// malformation returns the reason why split refuses a token that is not too large.
func malformation(token string) string {
	switch parts := strings.Split(token, "."); {
	case strings.ContainsAny(token, "\r\n"):
		return "it has a line break"
	case len(parts) == 5:
		return "it has five parts between dots, as encrypted tokens have; signed ones have three"
	case len(parts) == 1:
		return "it has no dots; a token is three parts with a dot between them"
	case len(parts) != 3:
		return fmt.Sprintf("it has %d parts between dots, not three", len(parts))
	case parts[0] == "":
		return "its first part, the header, is empty"
	}
	return "its second part, the claims, is empty"
}

// decodeObject decodes one part of a token, which must be a JSON object without duplicate members.
func decodeObject(text, part string) (json.RawMessage, error) {
	data, err := segment.DecodeString(text)
	if err != nil {
		return nil, notJWT("%s is not base64url", part)
	}
	var members map[string]josejson.RawMessage
	if !utf8.Valid(data) || josejson.Unmarshal(data, &members) != nil || members == nil {
		return nil, notJWT("%s is not one JSON object without duplicate names", part)
	}
	return data, nil
}

// Expected is what VerifyOffline requires of a token.
type Expected struct {
	// Issuer must equal iss. If it is empty, any issuer is accepted, which is safe only if the keys belong to one issuer.
	Issuer string
	// Audiences must have an entry of aud. If it is empty, any audience is accepted.
	Audiences []string
	Clock     clock.PassiveClock
}

// VerifyOffline verifies what can be verified with an issuer's public keys alone: signature, issuer, times and audience. It does
// not know whether the account and the bound objects still exist. It accepts tokens of any OpenID issuer. If there are claims
// about a service account, they must agree with the subject.
func VerifyOffline(token string, keys *signingkey.Set, want Expected) (*Claims, error) {
	claims, err := verifyOffline(token, keys, want)
	if !errors.Is(err, ErrNotJWT) {
		return claims, err
	}
	if _, err := Decode(token); err != nil {
		return nil, err
	}
	return nil, notJWT("its claims name no issuer (iss)")
}

func verifyOffline(token string, keys *signingkey.Set, want Expected) (*Claims, error) {
	t, err := read(token)
	if err != nil {
		return nil, err
	}
	if want.Issuer != "" && t.issuer != want.Issuer {
		return nil, fmt.Errorf("%w: want %q", ErrForeignIssuer, want.Issuer)
	}
	if _, err := t.verifySignature(keys, nil); err != nil {
		return nil, t.namingKey(err)
	}
	if t.fault != nil {
		return nil, t.fault
	}
	if err := t.claims.check(want); err != nil {
		return nil, err
	}
	return t.claims, nil
}

// namingKey adds the name of the missing key to ErrUnknownKey.
func (c compact) namingKey(err error) error {
	const longest = 128 // bytes; a thumbprint has 43
	if h, headerErr := c.parseHeader(); errors.Is(err, ErrUnknownKey) && headerErr == nil && h.KeyID != "" && len(h.KeyID) <= longest {
		return fmt.Errorf("%w: the token names the key %q", err, h.KeyID)
	}
	return err
}

func (c *Claims) check(want Expected) error {
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
