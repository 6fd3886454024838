package apiserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

const (
	issuerURL = "https://lanyard.example"
	jwksURL   = "https://keys.example/jwks"
)

func newKeySet(t *testing.T) *signingkey.Set {
	t.Helper()
	signer, err := signingkey.Generate(signingkey.ES256)
	if err != nil {
		t.Fatal(err)
	}
	other, err := signingkey.Generate(signingkey.ES256)
	if err != nil {
		t.Fatal(err)
	}
	set, err := signingkey.NewSet(signer, other.Public())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func servePublisher(t *testing.T, set signingkey.KeySource) *httptest.Server {
	t.Helper()
	publisher, err := newPublisher(issuerURL, jwksURL, set, func() time.Duration { return keySetMaxAge })
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	publisher.install(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

func fetch(t *testing.T, method, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, body
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	_, body := fetch(t, http.MethodGet, servePublisher(t, newKeySet(t)).URL+"/.well-known/openid-configuration")
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	// Both keys have the same algorithm, which is listed once.
	want := map[string]any{
		"issuer": issuerURL, "jwks_uri": jwksURL, "response_types_supported": []any{"id_token"},
		"subject_types_supported": []any{"public"}, "id_token_signing_alg_values_supported": []any{"ES256"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestKeySet(t *testing.T) {
	t.Parallel()
	set := newKeySet(t)
	_, body := fetch(t, http.MethodGet, servePublisher(t, set).URL+"/openid/v1/jwks")
	var published jose.JSONWebKeySet
	if err := json.Unmarshal(body, &published); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, key := range published.Keys {
		if !key.IsPublic() || !key.Valid() {
			t.Errorf("key %s is not a valid public key", key.KeyID)
		}
		got = append(got, key.KeyID)
	}
	for _, key := range set.Keys() {
		want = append(want, key.ID())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("key ids %q, want %q", got, want)
	}
	if bytes.Contains(body, []byte(`"d"`)) {
		t.Error("the key set holds a private part")
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	server := servePublisher(t, newKeySet(t))
	for path, mediaType := range map[string]string{
		discoveryPath: "application/json", jwksPath: "application/jwk-set+json",
	} {
		get, body := fetch(t, http.MethodGet, server.URL+path)
		head, none := fetch(t, http.MethodHead, server.URL+path)
		for method, response := range map[string]*http.Response{"GET": get, "HEAD": head} {
			want := map[string]string{
				"Content-Type": mediaType, "Cache-Control": "public, max-age=3600", "Content-Length": strconv.Itoa(len(body)),
			}
			for name, value := range want {
				if got := response.Header.Get(name); got != value {
					t.Errorf("%s %s: %s is %q, want %q", method, path, name, got, value)
				}
			}
			if response.StatusCode != http.StatusOK {
				t.Errorf("%s %s: status %d", method, path, response.StatusCode)
			}
		}
		if len(none) > 0 {
			t.Errorf("HEAD %s has a body", path)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			response, _ := fetch(t, method, server.URL+path)
			if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: status %d, Allow %q", method, path, response.StatusCode, response.Header.Get("Allow"))
			}
			if response.Header.Get("Cache-Control") == "public, max-age=3600" {
				t.Errorf("%s %s: the refusal may be cached", method, path)
			}
		}
	}
}

func TestKeySetURI(t *testing.T) {
	t.Parallel()
	set := newKeySet(t)
	for _, bad := range []string{"", "http://keys.example/jwks", "https://", "keys.example/jwks", "https:/jwks", "://"} {
		if _, err := newPublisher(issuerURL, bad, set, func() time.Duration { return keySetMaxAge }); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// changingKeys is a KeySource whose keys change.
type changingKeys struct {
	set atomic.Pointer[signingkey.Set]
}

func (k *changingKeys) Current() *signingkey.Set { return k.set.Load() }

func (k *changingKeys) change(t *testing.T, signer *signingkey.PrivateKey, accepted ...signingkey.PublicKey) {
	t.Helper()
	set, err := signingkey.NewSet(signer, accepted...)
	if err != nil {
		t.Fatal(err)
	}
	k.set.Store(set)
}

func generate(t *testing.T, alg signingkey.Algorithm) *signingkey.PrivateKey {
	t.Helper()
	key, err := signingkey.Generate(alg)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// existing is an Anchors in which every account exists with the UID 1.
type existing struct{ token.Anchors }

func (existing) Check(context.Context, string, *[sha256.Size]byte) error { return nil }

func (existing) ServiceAccount(context.Context, string, string) (token.Anchor, bool, error) {
	return token.Anchor{UID: "1"}, true, nil
}

// authority is an issuer, a verifier and a publisher with the same keys, and a relying party that knows the published
// documents alone.
type authority struct {
	keys     *changingKeys
	issuer   *token.Issuer
	verifier *token.Verifier
	server   *httptest.Server
}

func newAuthority(t *testing.T, keys *changingKeys) *authority {
	t.Helper()
	tokens, err := token.NewIssuer(issuerURL, token.NewKeySigner(keys), clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := token.NewVerifier(token.VerifierConfig{Issuers: []string{issuerURL}, Keys: keys, Anchors: existing{}, Ledger: existing{}, Clock: clock.RealClock{}})
	if err != nil {
		t.Fatal(err)
	}
	return &authority{keys: keys, issuer: tokens, verifier: verifier, server: servePublisher(t, keys)}
}

func (a *authority) issue(t *testing.T, signer *signingkey.PrivateKey) string {
	t.Helper()
	text, _, err := a.issuer.Issue(t.Context(), token.Request{
		Namespace: "ns", ServiceAccount: token.Ref{Name: "robot", UID: "1"}, Audiences: []string{issuerURL}, Lifetime: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := token.Decode(text)
	if err != nil || !bytes.Contains(decoded.Header, []byte(`"`+signer.ID()+`"`)) {
		t.Errorf("the header %s does not name the key %s (%v)", decoded.Header, signer.ID(), err)
	}
	return text
}

// check verifies a token with the verifier and with the published keys.
func (a *authority) check(t *testing.T, name, text string, want error) {
	t.Helper()
	for range 2 { // the second time from the cache, if the token is valid
		if _, err := a.verifier.Verify(t.Context(), text, []string{issuerURL}); !errors.Is(err, want) {
			t.Errorf("verifier: token of the %s key: %v, want %v", name, err, want)
		}
	}
	_, body := fetch(t, http.MethodGet, a.server.URL+jwksPath)
	published, err := signingkey.ParseJWKS(body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.VerifyOffline(text, published, token.Expected{Issuer: issuerURL, Clock: clock.RealClock{}}); !errors.Is(err, want) {
		t.Errorf("relying party: token of the %s key: %v, want %v", name, err, want)
	}
}

// etags returns the entity tags of both documents. It also checks that a request with the tag of the current document gets
// no body.
func (a *authority) etags(t *testing.T, previous map[string]string) map[string]string {
	t.Helper()
	tags := map[string]string{}
	for _, path := range []string{discoveryPath, jwksPath} {
		response, body := fetch(t, http.MethodGet, a.server.URL+path, "If-None-Match", previous[path])
		tags[path] = response.Header.Get("ETag")
		if want := tags[path] != previous[path]; want != (response.StatusCode == http.StatusOK) || want != (len(body) > 0) {
			t.Errorf("%s: status %d with %d bytes, ETag %s after %s", path, response.StatusCode, len(body), tags[path], previous[path])
		}
		again, rest := fetch(t, http.MethodGet, a.server.URL+path, "If-None-Match", tags[path])
		if again.StatusCode != http.StatusNotModified || len(rest) > 0 || again.Header.Get("Cache-Control") == "" {
			t.Errorf("%s: status %d with %d bytes for the ETag of now", path, again.StatusCode, len(rest))
		}
	}
	return tags
}

// TestChangeOfKeys changes the keys of one source while issuer, verifier and publisher use it.
func TestChangeOfKeys(t *testing.T) {
	t.Parallel()
	first, second := generate(t, signingkey.ES256), generate(t, signingkey.ES384)
	keys := new(changingKeys)
	keys.change(t, first)
	a := newAuthority(t, keys)
	old := a.issue(t, first)
	a.check(t, "first", old, nil)
	start := a.etags(t, nil)

	keys.change(t, second, first.Public())
	recent := a.issue(t, second)
	a.check(t, "first", old, nil)
	a.check(t, "second", recent, nil)
	both := a.etags(t, start)
	if both[jwksPath] == start[jwksPath] || both[discoveryPath] == start[discoveryPath] {
		t.Errorf("ETags %v after %v: key and algorithm are new", both, start)
	}

	keys.change(t, second)
	a.check(t, "first", old, token.ErrUnknownKey)
	a.check(t, "second", recent, nil)
	if last := a.etags(t, both); last[jwksPath] == both[jwksPath] {
		t.Errorf("ETags %v after %v: a key is gone", last, both)
	}
}

// TestKeysChangeDuringRequests issues, verifies and publishes while the keys change. Every token is valid at once, and every
// document has its own ETag.
func TestKeysChangeDuringRequests(t *testing.T) {
	t.Parallel()
	pair := []*signingkey.PrivateKey{generate(t, signingkey.ES256), generate(t, signingkey.ES384)}
	keys := new(changingKeys)
	change := func(i int) { keys.change(t, pair[i%2], pair[(i+1)%2].Public()) }
	change(0)
	a := newAuthority(t, keys)
	var working sync.WaitGroup
	for range 4 {
		working.Go(func() {
			for range 50 {
				text, _, err := a.issuer.Issue(t.Context(), token.Request{
					Namespace: "ns", ServiceAccount: token.Ref{Name: "robot", UID: "1"}, Audiences: []string{issuerURL}, Lifetime: time.Hour,
				})
				if err != nil {
					t.Error(err)
					continue
				}
				if _, err := a.verifier.Verify(t.Context(), text, []string{issuerURL}); err != nil {
					t.Error(err)
				}
				response, body := fetch(t, http.MethodGet, a.server.URL+jwksPath)
				sum := sha256.Sum256(body)
				if want := `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`; response.Header.Get("ETag") != want {
					t.Errorf("ETag %s of a document of %s", response.Header.Get("ETag"), want)
				}
			}
		})
	}
	for i := range 200 {
		change(i)
	}
	working.Wait()
}
