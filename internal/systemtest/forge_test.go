package systemtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
	"lanyard.dev/lanyardtest"
)

// forger makes tokens that the API would not give out.
type forger struct {
	t       testing.TB
	key     *signingkey.PrivateKey
	issuer  string
	request token.Request
}

// forgerAt forges with the authority's own key, for an account that exists.
func forgerAt(t testing.TB, a *lanyardtest.Authority, namespace, name string) forger {
	t.Helper()
	key, err := signingkey.LoadPrivate(filepath.Join(a.DataDir(), "sa.key"))
	if err != nil {
		t.Fatal(err)
	}
	account := a.CreateServiceAccount(t, namespace, name)
	return forger{t: t, key: key, issuer: a.URL(), request: token.Request{
		Namespace: namespace, ServiceAccount: token.Ref{Name: name, UID: string(account.UID)},
		Audiences: []string{a.URL()}, Lifetime: time.Hour,
	}}
}

// issued returns what an authority with the key would have issued at a time from now.
func (f forger) issued(when time.Duration) string {
	f.t.Helper()
	keys, err := signingkey.NewSet(f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	issuer, err := token.NewIssuer(f.issuer, keys, clocktesting.NewFakePassiveClock(time.Now().Add(when)))
	if err != nil {
		f.t.Fatal(err)
	}
	text, _, err := issuer.Issue(f.request)
	if err != nil {
		f.t.Fatal(err)
	}
	return text
}

// signed returns any header and payload under the key's signature.
func (f forger) signed(header, payload string) string {
	f.t.Helper()
	input := segment(header) + "." + segment(payload)
	signature, err := f.key.Sign([]byte(input))
	if err != nil {
		f.t.Fatal(err)
	}
	return input + "." + segment(string(signature))
}

// keyed returns the payload under an HMAC whose secret is the public key, as a verifier that trusts the header's
// algorithm would check it.
func (f forger) keyed(payload string) string {
	f.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(f.key.Public().Key())
	if err != nil {
		f.t.Fatal(err)
	}
	input := segment(`{"alg":"HS256","kid":"`+f.key.ID()+`"}`) + "." + segment(payload)
	mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	mac.Write([]byte(input))
	return input + "." + segment(string(mac.Sum(nil)))
}

// claims returns the payload of a good token after a change.
func (f forger) claims(change func(map[string]any)) string {
	f.t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(f.issued(0), ".")[1])
	if err != nil {
		f.t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(payload, &all); err != nil {
		f.t.Fatal(err)
	}
	change(all)
	return string(encode(f.t, all))
}

func segment(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
