package token

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/signingkey"
)

func parseECDSA(tb testing.TB, text []byte) *ecdsa.PrivateKey {
	tb.Helper()
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		tb.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}

func signWithGoJOSE(tb testing.TB, key *ecdsa.PrivateKey, kid string, payload []byte) string {
	tb.Helper()
	opts := (&jose.SignerOptions{}).WithHeader("kid", kid).WithType("JWT")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, opts)
	if err != nil {
		tb.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func TestVerifyOffline(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	keys, err := signingkey.ParseJWKS(f.keys.Current().JWKS())
	if err != nil {
		t.Fatal(err)
	}
	good := forge(t, f.key, headerOf(f.key), payload())
	openid := forge(t, f.key, headerOf(f.key), payload("sub", `"someone"`, "kubernetes.io", ""))
	for _, tt := range []struct {
		name  string
		token string
		want  Expected
		after time.Duration
		err   error
		text  string
	}{
		{name: "everything asked", token: good, want: Expected{Issuer: testIssuer, Audiences: []string{"x", testAudience}}},
		{name: "nothing asked", token: good},
		{name: "not a service account", token: openid, want: Expected{Issuer: testIssuer}},
		{
			name: "expired", token: good, after: time.Hour, err: ErrExpired,
			text: "service account token has expired: at 2026-08-01T13:00:00Z",
		},
		{
			name: "not valid yet", token: good, after: -time.Hour, err: ErrNotYetValid,
			text: "service account token is not valid yet: it is from 2026-08-01T12:00:00Z",
		},
		{
			name: "other issuer", token: good, want: Expected{Issuer: "https://a.example"}, err: ErrForeignIssuer,
			text: `token is from another issuer: want "https://a.example"`,
		},
		{
			name: "other audience", token: good, want: Expected{Audiences: []string{"vault"}}, err: ErrAudience,
			text: `token audiences are invalid for the target audiences: token has ["https://api.example"], want one of ["vault"]`,
		},
		{
			name: "no expiry", token: forge(t, f.key, headerOf(f.key), payload("exp", "", "kubernetes.io", "")), err: ErrMalformed,
			text: "token is malformed: it has no expiry",
		},
		{name: "other subject", token: forge(t, f.key, headerOf(f.key), payload("sub", `"x"`)), err: ErrSubject, text: ErrSubject.Error()},
		{name: "other key", token: forge(t, mustGenerate(signingkey.ES256), headerOf(f.key), payload()), err: ErrBadSignature, text: "invalid signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.want.Clock = clocktesting.NewFakePassiveClock(testNow.Add(tt.after))
			claims, err := VerifyOffline(tt.token, keys, tt.want)
			if !errors.Is(err, tt.err) || (claims == nil) != (tt.err != nil) {
				t.Fatalf("VerifyOffline = %v, %v; want %v", claims, err, tt.err)
			}
			if tt.err != nil && err.Error() != tt.text {
				t.Errorf("error %q\n want %q", err, tt.text)
			}
		})
	}
}

// TestVerifyOfflineRefuses checks that VerifyOffline refuses what the Verifier refuses.
func TestVerifyOfflineRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	for _, tt := range refusals(t, f) {
		if tt.name == "no kubernetes.io claim" { // as OpenID tokens are
			continue
		}
		claims, err := VerifyOffline(tt.token, f.keys.Current(), Expected{Issuer: testIssuer, Audiences: []string{testAudience}, Clock: f.clock})
		if !errors.Is(err, tt.want) || claims != nil {
			t.Errorf("%s: VerifyOffline = %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	text := forge(t, f.key, headerOf(f.key), payload("role", `"x"`))
	d, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if string(d.Header) != headerOf(f.key) || string(d.Payload) != payload("role", `"x"`) || d.Claims.Kubernetes.ServiceAccount.UID != "sa-1" {
		t.Errorf("Decode = %s %s %+v", d.Header, d.Payload, d.Claims)
	}
	all, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if signature := text[strings.LastIndexByte(text, '.')+1:]; strings.Contains(string(all), signature[:20]) {
		t.Error("the signature is in the result")
	}
	foreign, err := Decode(b64(`{"alg":"none"}`) + "." + b64(`{"exp":1.5,"iss":"x"}`) + ".")
	if err != nil || foreign.Claims != nil || string(foreign.Payload) != `{"exp":1.5,"iss":"x"}` {
		t.Errorf("Decode of a foreign token = %+v, %v", foreign, err)
	}
	if d.SignatureFault != "" || foreign.SignatureFault != "its third part, the signature, is empty" {
		t.Errorf("faults of the signatures: %q, %q", d.SignatureFault, foreign.SignatureFault)
	}
	if _, err := Decode(strings.Repeat("a", MaxSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Decode of an oversized token = %v", err)
	}
}

// TestVectors verifies stored tokens, whose keys no longer exist. So a change of the code that issues tokens does not change
// what this test verifies.
func TestVectors(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		JWKS    json.RawMessage
		Vectors []struct{ Name, Token, Error string }
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	keys, err := signingkey.ParseJWKS(file.JWKS)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, nil, keys.Keys()...)
	for _, v := range file.Vectors {
		_, err := f.verify(v.Token)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != v.Error {
			t.Errorf("%s: %q, want %q", v.Name, got, v.Error)
		}
	}
	if len(file.Vectors) < 20 {
		t.Errorf("only %d vectors", len(file.Vectors))
	}
}

// TestDecodeNamesTheFaultyPart also checks that the error does not contain the part.
func TestDecodeNamesTheFaultyPart(t *testing.T) {
	t.Parallel()
	object := b64("{}")
	for bad, want := range map[string]string{
		"":                               "it has no dots; a token is three parts with a dot between them",
		"secret":                         "it has no dots; a token is three parts with a dot between them",
		"a.b":                            "it has 2 parts between dots, not three",
		"a.b.c.d":                        "it has 4 parts between dots, not three",
		"a.b.c.d.e":                      "it has five parts between dots, as encrypted tokens have; signed ones have three",
		"a.b.c\n":                        "it has a line break",
		".b.c":                           "its first part, the header, is empty",
		"a..c":                           "its second part, the claims, is empty",
		"a.b.c":                          "its first part, the header, is not base64url",
		"Bearer " + object + ".b.c":      "its first part, the header, is not base64url",
		b64("secret") + ".b.c":           "its first part, the header, is not one JSON object without duplicate names",
		b64("null") + "." + object + ".": "its first part, the header, is not one JSON object without duplicate names",
		object + ".b.c":                  "its second part, the claims, is not base64url",
		object + "." + b64(`{"a":1,"a":2}`) + ".": "its second part, the claims, is not one JSON object without duplicate names",
	} {
		_, err := Decode(bad)
		if !errors.Is(err, ErrNotJWT) || err.Error() != ErrNotJWT.Error()+": "+want {
			t.Errorf("Decode(%q) = %v, want %s", bad, err, want)
		}
		if _, offline := VerifyOffline(bad, nil, Expected{}); !errors.Is(offline, ErrNotJWT) || offline.Error() != err.Error() {
			t.Errorf("VerifyOffline(%q) = %v, want %v", bad, offline, err)
		}
	}
	odd, err := Decode(object + "." + object + ".a b")
	if err != nil || odd.SignatureFault != "its third part, the signature, is not base64url" {
		t.Errorf("a signature with a space: %+v, %v", odd, err)
	}
	if _, err := VerifyOffline(object+"."+object+".AAAA", nil, Expected{}); !errors.Is(err, ErrNotJWT) || !strings.HasSuffix(err.Error(), ": its claims name no issuer (iss)") {
		t.Errorf("without an issuer: %v", err)
	}
}

// TestUnknownKeyIsNamed checks that the error names the key, unless the name is empty or very long.
func TestUnknownKeyIsNamed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	other := mustGenerate(signingkey.ES256)
	longest := strings.Repeat("k", 128)
	for kid, want := range map[string]string{
		other.ID():    `invalid signature, no keys found: the token names the key "` + other.ID() + `"`,
		longest:       `invalid signature, no keys found: the token names the key "` + longest + `"`,
		longest + "k": "invalid signature, no keys found",
	} {
		header := `{"alg":"ES256","kid":"` + kid + `"}`
		_, err := VerifyOffline(forge(t, other, header, payload()), f.keys.Current(), Expected{Clock: f.clock})
		if !errors.Is(err, ErrUnknownKey) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	header, claims := b64(`{"alg":"none","kid":"k1"}`), b64(`{"jti":"id-1"}`)
	for _, tt := range []struct{ token, kid, jti string }{
		{header + "." + claims + ".", "k1", "id-1"},
		{header + "." + b64("{}") + ".", "k1", ""},
		{header + "." + b64(`{"jti":7}`) + ".", "k1", ""},
		{header + ".!.", "k1", ""},
		{b64("{}") + "." + claims + ".", "", "id-1"},
		{b64(`{"kid":7}`) + "." + claims + ".", "", "id-1"},
		{"!." + claims + ".", "", "id-1"},
		{header + "." + claims, "", ""},
		{"", "", ""},
	} {
		if kid, jti := Names(tt.token); kid != tt.kid || jti != tt.jti {
			t.Errorf("Names(%q) = %q, %q; want %q, %q", tt.token, kid, jti, tt.kid, tt.jti)
		}
	}
}
