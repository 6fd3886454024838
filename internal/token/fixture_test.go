package token

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/signingkey"
)

const (
	testIssuer   = "https://lanyard.example"
	testAudience = "https://api.example"
)

var testNow = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// objects is an Anchors of existing objects, by kind, namespace and name.
type objects struct {
	mu    sync.RWMutex
	items map[[3]string]Anchor
	stale error
	asked int           // number of look-ups of accounts
	hold  chan struct{} // if set, every look-up waits for it or for its context
}

func (o *objects) set(kind, namespace, name string, a Anchor) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.items[[3]string{kind, namespace, name}] = a
}

func (o *objects) remove(kind, namespace, name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.items, [3]string{kind, namespace, name})
}

func (o *objects) get(kind, namespace, name string) (Anchor, bool, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	a, ok := o.items[[3]string{kind, namespace, name}]
	return a, ok, o.stale
}

func (o *objects) ServiceAccount(ctx context.Context, namespace, name string) (Anchor, bool, error) {
	o.mu.Lock()
	o.asked++
	hold := o.hold
	o.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return Anchor{}, false, ctx.Err()
		}
	}
	return o.get("serviceaccount", namespace, name)
}

func (o *objects) Pod(_ context.Context, namespace, name string) (Anchor, bool, error) {
	return o.get("pod", namespace, name)
}

func (o *objects) Secret(_ context.Context, namespace, name string) (Anchor, bool, error) {
	return o.get("secret", namespace, name)
}

func (o *objects) Node(_ context.Context, name string) (Anchor, bool, error) {
	return o.get("node", "", name)
}

// records is a Ledger that has a record of every token, except for those that a test names.
type records struct {
	mu      sync.Mutex
	refused map[string]error // by jti
}

func (r *records) refuse(jti string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = map[string]error{jti: err}
}

func (r *records) Check(_ context.Context, jti string, _ *[sha256.Size]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused[jti]
}

// keyring is a KeySource whose keys change.
type keyring struct {
	mu  sync.Mutex
	set *signingkey.Set
}

func (k *keyring) Current() *signingkey.Set {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set
}

func (k *keyring) rotate(set *signingkey.Set) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set = set
}

// fixture is one authority: account shop/cart, its pod, secret and node, an issuer and a verifier.
type fixture struct {
	key      *signingkey.PrivateKey
	keys     *keyring
	clock    *clocktesting.FakePassiveClock
	objects  *objects
	ledger   *records
	issuer   *Issuer
	verifier *Verifier
}

// All tests share one key of each type, because generating RSA keys takes long.
var (
	es256Key = sync.OnceValue(func() *signingkey.PrivateKey { return mustGenerate(signingkey.ES256) })
	rs256Key = sync.OnceValue(func() *signingkey.PrivateKey { return mustGenerate(signingkey.RS256) })
)

func mustGenerate(alg signingkey.Algorithm) *signingkey.PrivateKey {
	key, err := signingkey.Generate(alg)
	if err != nil {
		panic(err)
	}
	return key
}

func newFixture(tb testing.TB, key *signingkey.PrivateKey, more ...signingkey.PublicKey) *fixture {
	tb.Helper()
	set, err := signingkey.NewSet(key, more...)
	if err != nil {
		tb.Fatal(err)
	}
	f := &fixture{
		key: key, keys: &keyring{set: set}, clock: clocktesting.NewFakePassiveClock(testNow),
		objects: &objects{items: map[[3]string]Anchor{}}, ledger: &records{},
	}
	f.objects.set("serviceaccount", "shop", "cart", Anchor{UID: "sa-1"})
	f.objects.set("pod", "shop", "cart-0", Anchor{UID: "pod-1", ServiceAccountName: "cart", NodeName: "n1"})
	f.objects.set("secret", "shop", "cart-token", Anchor{UID: "secret-1"})
	f.objects.set("node", "", "n1", Anchor{UID: "node-1"})
	if f.issuer, err = NewIssuer(testIssuer, NewKeySigner(f.keys), f.clock); err != nil {
		tb.Fatal(err)
	}
	f.verifier, err = NewVerifier(VerifierConfig{
		Issuers: []string{"https://old.example", testIssuer}, Keys: f.keys, Anchors: f.objects, Ledger: f.ledger, Clock: f.clock,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func request() Request {
	return Request{
		Namespace: "shop", ServiceAccount: Ref{"cart", "sa-1"},
		Audiences: []string{testAudience}, Lifetime: time.Hour,
	}
}

func podRequest() Request {
	r := request()
	r.Pod, r.Node = &Ref{"cart-0", "pod-1"}, &Ref{"n1", "node-1"}
	return r
}

func (f *fixture) issue(tb testing.TB, r Request) string {
	tb.Helper()
	text, _, err := f.issuer.Issue(tb.Context(), r)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func (f *fixture) verify(token string) (Identity, error) {
	return f.verifier.Verify(context.Background(), token, []string{testAudience})
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// forge returns a token with any header and payload, signed with key.
func forge(tb testing.TB, key *signingkey.PrivateKey, header, payload string) string {
	tb.Helper()
	signed := b64(header) + "." + b64(payload)
	sig, err := key.Sign([]byte(signed))
	if err != nil {
		tb.Fatal(err)
	}
	return signed + "." + b64(string(sig))
}

func headerOf(key *signingkey.PrivateKey) string {
	return fmt.Sprintf(`{"alg":%q,"kid":%q}`, key.Algorithm(), key.ID())
}

// payload returns valid claims as JSON. changes are names and raw values of members to replace or add, in turn. An empty
// value removes the member.
func payload(changes ...string) string {
	members := []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "kubernetes.io"}
	values := map[string]string{
		"iss":           `"` + testIssuer + `"`,
		"sub":           `"system:serviceaccount:shop:cart"`,
		"aud":           `["` + testAudience + `"]`,
		"exp":           fmt.Sprint(testNow.Add(time.Hour).Unix()),
		"iat":           fmt.Sprint(testNow.Unix()),
		"nbf":           fmt.Sprint(testNow.Unix()),
		"jti":           `"6f1c7a50-8c1c-4d35-9a0f-7a9fcd1d9b11"`,
		"kubernetes.io": `{"namespace":"shop","serviceaccount":{"name":"cart","uid":"sa-1"}}`,
	}
	for i := 0; i < len(changes); i += 2 {
		if _, known := values[changes[i]]; !known {
			members = append(members, changes[i])
		}
		values[changes[i]] = changes[i+1]
	}
	text := ""
	for _, m := range members {
		if values[m] != "" {
			text += fmt.Sprintf(",%q:%s", m, values[m])
		}
	}
	return "{" + text[1:] + "}"
}

var sentinels = []error{
	ErrNotJWT, ErrForeignIssuer, ErrTooLarge, ErrMalformed, ErrAlgorithm, ErrUnknownKey, ErrBadSignature, ErrSubject,
	ErrExpired, ErrNotYetValid, ErrAudience, ErrAccountGone, ErrPodGone, ErrSecretGone, ErrNodeGone, ErrAnchorsStale,
	ErrUnrecorded, ErrRevoked, ErrLedgerStale,
}

func isSentinel(err error) bool {
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}
