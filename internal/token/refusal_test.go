package token

import (
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"lanyard.dev/internal/signingkey"
)

type refusal struct {
	name  string
	token string
	want  error
}

// refusals are tokens that the verifier of the fixture must refuse, whatever its anchors.
func refusals(tb testing.TB, f *fixture) []refusal {
	key, other := f.key, mustGenerate(signingkey.ES256)
	header := headerOf(key)
	good := forge(tb, key, header, payload())
	cut := strings.Split(good, ".")
	with := func(changes ...string) string { return forge(tb, key, header, payload(changes...)) }
	head := func(h string) string { return forge(tb, key, h, payload()) }
	es := func(extra string) string { return head(strings.TrimSuffix(header, "}") + "," + extra + "}") }
	at := func(d time.Duration) string { return fmt.Sprint(testNow.Add(d).Unix()) }
	return []refusal{
		{"empty", "", ErrNotJWT},
		{"two segments", cut[0] + "." + cut[1], ErrNotJWT},
		{"four segments", good + ".", ErrNotJWT},
		{"JWE", good + "." + cut[1] + "." + cut[2], ErrNotJWT},
		{"opaque", "abcdef.0123456789abcdef", ErrNotJWT},
		{"binary junk", "\x00\xff\xfe.\x80\x81.\xff", ErrNotJWT},
		{"JSON serialization", `{"payload":"` + cut[1] + `","protected":"` + cut[0] + `","signature":"` + cut[2] + `"}`, ErrNotJWT},
		{"leading space", " " + good, ErrMalformed},
		{"trailing newline", good + "\n", ErrNotJWT},
		{"newline inside payload", cut[0] + "." + cut[1][:8] + "\n" + cut[1][8:] + "." + cut[2], ErrNotJWT},
		{"oversized", good + strings.Repeat("A", MaxSize), ErrTooLarge},
		{"standard base64 alphabet", cut[0] + "." + cut[1] + "." + "+/" + cut[2][2:], ErrMalformed},
		{"padded signature", good + "==", ErrMalformed},
		{"trailing bits in signature", good[:len(good)-1] + nextLetter(good[len(good)-1]), ErrMalformed},
		{"confusable letter in signature", good[:len(good)-1] + "а", ErrMalformed},

		{"alg none", b64(`{"alg":"none"}`) + "." + cut[1] + ".", ErrAlgorithm},
		{"alg none in capitals", b64(`{"alg":"NONE","kid":"`+key.ID()+`"}`) + "." + cut[1] + "." + cut[2], ErrAlgorithm},
		{"alg missing", head(`{"kid":"` + key.ID() + `"}`), ErrAlgorithm},
		{"alg of another curve", head(`{"alg":"ES384","kid":"` + key.ID() + `"}`), ErrAlgorithm},
		{"alg of another key type", head(`{"alg":"RS256","kid":"` + key.ID() + `"}`), ErrAlgorithm},
		{"HS256 keyed with the public key", hmacWithPublicKey(tb, key), ErrAlgorithm},
		{"alg of no key, without kid", head(`{"alg":"RS256"}`), ErrUnknownKey},
		{"kid unknown", head(`{"alg":"ES256","kid":"nobody"}`), ErrUnknownKey},
		{"kid confusable", head(`{"alg":"ES256","kid":"` + key.ID() + `\u0430"}`), ErrUnknownKey},
		{"kid of a huge size", head(`{"alg":"ES256","kid":"` + strings.Repeat("k", 4000) + `"}`), ErrUnknownKey},
		{"kid is not a string", head(`{"alg":"ES256","kid":7}`), ErrMalformed},
		{"crit", es(`"crit":["exp"]`), ErrMalformed},
		{"crit of nothing", es(`"crit":[]`), ErrMalformed},
		{"b64 false", es(`"b64":false`), ErrMalformed},
		{"JWE header", es(`"enc":"A128GCM"`), ErrMalformed},
		{"compressed", es(`"zip":"DEF"`), ErrMalformed},
		{"brings its own key", forge(tb, other, fmt.Sprintf(`{"alg":"ES256","jwk":%s}`, jwkOf(tb, other)), payload()), ErrBadSignature},
		{"duplicate header member", head(`{"alg":"none","alg":"ES256","kid":"` + key.ID() + `"}`), ErrMalformed},
		{"header followed by data", head(header + "{}"), ErrMalformed},
		{"header is a list", head("[" + header + "]"), ErrMalformed},
		{"header is not UTF-8", head(strings.Replace(header, "kid", "k\xffd", 1)), ErrMalformed},

		{"signed by another key under our kid", forge(tb, other, header, payload()), ErrBadSignature},
		{"signed by another key without kid", forge(tb, other, `{"alg":"ES256"}`, payload()), ErrBadSignature},
		{"swapped payload", cut[0] + "." + b64(payload("sub", `"system:serviceaccount:kube-system:admin"`)) + "." + cut[2], ErrBadSignature},
		{"no signature", cut[0] + "." + cut[1] + ".", ErrBadSignature},
		{"signature cut short", good[:len(good)-2], ErrBadSignature},
		{"signature of zeros", cut[0] + "." + cut[1] + "." + b64(strings.Repeat("\x00", 64)), ErrBadSignature},
		{"signature in ASN.1", cut[0] + "." + cut[1] + "." + b64("\x30\x06\x02\x01\x01\x02\x01\x01"), ErrBadSignature},

		{"foreign issuer", with("iss", `"https://elsewhere.example"`), ErrForeignIssuer},
		{"foreign issuer with other claims", with("iss", `"https://elsewhere.example"`, "aud", "7"), ErrForeignIssuer},
		{"claims that cannot be read, signed by another key", forge(tb, other, header, payload("aud", "7")), ErrBadSignature},
		{"issuer confusable", with("iss", `"https://lany\u0430rd.example"`), ErrForeignIssuer},
		{"issuer with a slash more", with("iss", `"`+testIssuer+`/"`), ErrForeignIssuer},
		{"issuer missing", with("iss", ""), ErrNotJWT},
		{"issuer is a list", with("iss", `["`+testIssuer+`"]`), ErrNotJWT},
		{"issuer under another case", with("iss", "", "ISS", `"`+testIssuer+`"`), ErrNotJWT},
		{"issuer twice", forge(tb, key, header, `{"iss":"https://elsewhere.example",`+payload()[1:]), ErrNotJWT},
		{"payload is null", forge(tb, key, header, "null"), ErrNotJWT},
		{"payload followed by data", forge(tb, key, header, payload()+"{}"), ErrNotJWT},
		{"payload nested too deep", forge(tb, key, header, `{"iss":`+strings.Repeat("[", 9000)), ErrNotJWT},

		{"expired", with("exp", at(-time.Second)), ErrExpired},
		{"expires now", with("exp", at(0)), ErrExpired},
		{"not valid yet", with("nbf", at(61*time.Second)), ErrNotYetValid},
		{"issued in the future", with("iat", at(61*time.Second)), ErrNotYetValid},
		{"no expiry", with("exp", ""), ErrMalformed},
		{"expiry null", with("exp", "null"), ErrMalformed},
		{"expiry a string", with("exp", `"`+at(time.Hour)+`"`), ErrMalformed},
		{"expiry huge", with("exp", "1"+strings.Repeat("0", 400)), ErrMalformed},
		{"expiry with an exponent", with("exp", "1e300"), ErrMalformed},
		{"expiry past the year 9999", with("exp", "253402300800"), ErrMalformed},
		{"expiry negative", with("exp", "-1"), ErrMalformed},
		{"expiry the largest integer", with("exp", "9223372036854775807"), ErrMalformed},
		{"duplicate sub", with("x", `1,"sub":"system:serviceaccount:shop:cart"`), ErrNotJWT},
		{"duplicate inside kubernetes.io", with("kubernetes.io",
			`{"namespace":"shop","namespace":"shop","serviceaccount":{"name":"cart","uid":"sa-1"}}`), ErrMalformed},
		{"claims are not UTF-8", with("x", "\"\xff\""), ErrMalformed},

		{"audience foreign", with("aud", `["https://vault.example"]`), ErrAudience},
		{"audience one letter off", with("aud", `"`+testAudience+`/"`), ErrAudience},
		{"audience missing", with("aud", ""), ErrAudience},
		{"audience empty", with("aud", "[]"), ErrAudience},
		{"audience a number", with("aud", "7"), ErrMalformed},
		{"audience mixed", with("aud", `["`+testAudience+`",7]`), ErrMalformed},

		{"sub of another account", with("sub", `"system:serviceaccount:shop:admin"`), ErrSubject},
		{"sub confusable", with("sub", `"system:serviceaccount:shop:\u0441art"`), ErrSubject},
		{"sub missing", with("sub", ""), ErrSubject},
		{"sub under another case", with("sub", "", "Sub", `"system:serviceaccount:shop:cart"`), ErrSubject},
		{"no kubernetes.io claim", with("kubernetes.io", ""), ErrMalformed},
		{"kubernetes.io is a list", with("kubernetes.io", "[]"), ErrMalformed},
		{"namespace with a colon", with("sub", `"system:serviceaccount:a:b:c"`,
			"kubernetes.io", `{"namespace":"a:b","serviceaccount":{"name":"c","uid":"1"}}`), ErrMalformed},
		{"account without UID", with("kubernetes.io", `{"namespace":"shop","serviceaccount":{"name":"cart"}}`), ErrMalformed},
		{"pod without UID", with("kubernetes.io",
			`{"namespace":"shop","serviceaccount":{"name":"cart","uid":"sa-1"},"pod":{"name":"cart-0"}}`), ErrMalformed},
		{"pod and secret", with("kubernetes.io", `{"namespace":"shop","serviceaccount":{"name":"cart","uid":"sa-1"},
			"pod":{"name":"cart-0","uid":"pod-1"},"secret":{"name":"cart-token","uid":"secret-1"}}`), ErrMalformed},
	}
}

// nextLetter changes the lowest bit of the letter's value. In the last letter of 64 bytes this bit encodes nothing.
func nextLetter(c byte) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(letters[strings.IndexByte(letters, c)^1])
}

func hmacWithPublicKey(tb testing.TB, key *signingkey.PrivateKey) string {
	tb.Helper()
	secret, err := key.Public().MarshalPEM()
	if err != nil {
		tb.Fatal(err)
	}
	opts := (&jose.SignerOptions{}).WithHeader("kid", key.ID())
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, opts)
	if err != nil {
		tb.Fatal(err)
	}
	jws, err := signer.Sign([]byte(payload()))
	if err != nil {
		tb.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func jwkOf(tb testing.TB, key *signingkey.PrivateKey) []byte {
	tb.Helper()
	data, err := jose.JSONWebKey{Key: key.Public().Key()}.MarshalJSON()
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	for _, tt := range refusals(t, f) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // the second time the facts may be cached
				id, err := f.verify(tt.token)
				if !errors.Is(err, tt.want) {
					t.Fatalf("Verify = %v, want %v", err, tt.want)
				}
				if id.Name != "" || id.Claims != nil {
					t.Fatalf("a refused token yields %+v", id)
				}
				if Foreign(err) != (tt.want == ErrNotJWT || tt.want == ErrForeignIssuer) {
					t.Errorf("Foreign(%v) = %v", err, Foreign(err))
				}
				leaksToken(t, err, tt.token)
			}
		})
	}
}

// leaksToken fails the test if the error contains a part of the token.
func leaksToken(tb testing.TB, err error, token string) {
	tb.Helper()
	const stretch = 12
	for i := 0; i+stretch <= len(token); i++ {
		if strings.Contains(err.Error(), token[i:i+stretch]) {
			tb.Fatalf("error %q contains a part of the token", err)
		}
	}
}

func TestVerifyRefusesWithoutAudiences(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	if _, err := f.verifier.Verify(context.Background(), f.issue(t, request()), nil); !errors.Is(err, ErrAudience) {
		t.Errorf("Verify for no audience = %v, want %v", err, ErrAudience)
	}
}

func TestVerifyAcceptsVariants(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key(), rs256Key().Public())
	at := func(d time.Duration) string { return fmt.Sprint(testNow.Add(d).Unix()) }
	for name, token := range map[string]string{
		"as issued":           forge(t, f.key, headerOf(f.key), payload()),
		"no kid":              forge(t, f.key, `{"alg":"ES256"}`, payload()),
		"no kid, second key":  forge(t, rs256Key(), `{"alg":"RS256"}`, payload()),
		"typ":                 forge(t, f.key, `{"alg":"ES256","typ":"JWT"}`, payload()),
		"second key":          forge(t, rs256Key(), headerOf(rs256Key()), payload()),
		"second issuer":       forge(t, f.key, headerOf(f.key), payload("iss", `"https://old.example"`)),
		"audience as string":  forge(t, f.key, headerOf(f.key), payload("aud", `"`+testAudience+`"`)),
		"clock skew":          forge(t, f.key, headerOf(f.key), payload("nbf", at(time.Minute), "iat", at(time.Minute))),
		"last second":         forge(t, f.key, headerOf(f.key), payload("exp", at(time.Second))),
		"escaped member name": forge(t, f.key, headerOf(f.key), strings.Replace(payload(), `"sub"`, `"\u0073ub"`, 1)),
		"unknown claims":      forge(t, f.key, headerOf(f.key), payload("role", `{"a":[1,2.5,null]}`)),
	} {
		if id, err := f.verify(token); err != nil || id.Name != "system:serviceaccount:shop:cart" {
			t.Errorf("%s: Verify = %q, %v", name, id.Name, err)
		}
	}
}

// TestOneFormOfASignature checks the second signature (R, N-S) that is valid for a token: it is refused for the key that the
// issuer signs with, and accepted for a key of other signers.
func TestOneFormOfASignature(t *testing.T) {
	t.Parallel()
	own := newFixture(t, es256Key())
	token := own.issue(t, request())
	if _, err := own.verify(twin(t, token)); !errors.Is(err, ErrBadSignature) {
		t.Errorf("the twin of our own token: %v, want %v", err, ErrBadSignature)
	}
	other := newFixture(t, rs256Key(), es256Key().Public())
	for name, text := range map[string]string{"token": token, "twin": twin(t, token)} {
		if _, err := other.verify(text); err != nil {
			t.Errorf("the %s of another issuer's key: %v", name, err)
		}
	}
}

// twin replaces S by N-S, which is valid too.
func twin(tb testing.TB, token string) string {
	tb.Helper()
	i := strings.LastIndexByte(token, '.')
	sig, err := base64.RawURLEncoding.DecodeString(token[i+1:])
	if err != nil {
		tb.Fatal(err)
	}
	n := es256Key().Public().Key().(*ecdsa.PublicKey).Params().N
	s := new(big.Int).Sub(n, new(big.Int).SetBytes(sig[32:]))
	s.FillBytes(sig[32:])
	return token[:i+1] + base64.RawURLEncoding.EncodeToString(sig)
}
