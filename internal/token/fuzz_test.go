package token

import (
	"testing"

	"lanyard.dev/internal/signingkey"
)

// FuzzVerify checks that no input makes the verifier panic or return an error without a sentinel, and that it accepts only
// the seeds.
func FuzzVerify(f *testing.F) {
	fix := newFixture(f, es256Key())
	good := map[string]bool{}
	for _, r := range []Request{request(), podRequest()} {
		text := fix.issue(f, r)
		good[text] = true
		f.Add(text)
		f.Add(twin(f, text))
	}
	for _, r := range refusals(f, fix) {
		f.Add(r.token)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := fix.verify(text)
		switch {
		case err == nil && !good[text]:
			t.Fatalf("accepted a forged token as %q", id.Name)
		case err != nil && !isSentinel(err):
			t.Fatalf("refused without a reason: %v", err)
		}
		if d, err := Decode(text); err == nil && (len(d.Header) == 0 || len(d.Payload) == 0) {
			t.Fatal("decoded to nothing")
		}
		if kid, jti := Names(text); len(kid)+len(jti) > len(text) {
			t.Fatalf("names %q and %q are longer than the token", kid, jti)
		}
	})
}

// FuzzClaims checks that no payload with a valid signature makes the verifier panic.
func FuzzClaims(f *testing.F) {
	f.Add(payload())
	f.Add(payload("aud", `"a"`, "exp", "1e9"))
	f.Add(`{"iss":null,"aud":[null],"kubernetes.io":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseClaims([]byte(text))
		if err != nil || c.validate() != nil || c.checkTimes(testNow) != nil {
			return
		}
		id := newIdentity(c)
		if id.UID == "" || id.Name != subjectOf(id.Namespace, id.ServiceAccount) {
			t.Fatalf("identity %+v", id)
		}
	})
}

// FuzzParseJWKS checks that no key set makes the parser panic, or makes the token of another key acceptable.
func FuzzParseJWKS(f *testing.F) {
	fix := newFixture(f, es256Key())
	text := forge(f, mustGenerate(signingkey.ES256), `{"alg":"ES256"}`, payload())
	f.Add(fix.keys.Current().JWKS())
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"oct","k":"AA"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := signingkey.ParseJWKS(data)
		if err != nil {
			return
		}
		if _, err := VerifyOffline(text, keys, Expected{Clock: fix.clock}); err == nil || !isSentinel(err) {
			t.Fatalf("VerifyOffline = %v", err)
		}
	})
}
