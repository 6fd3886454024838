package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/outage"
)

const header = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"

// claims maps the groups with a prefix and the name without one.
const claims = `
    username: {claim: sub, prefix: ""}
    groups: {claim: groups, prefix: "idp:"}`

func entry(i *issuer, mappings string) string {
	return fmt.Sprintf(`
- issuer:
    url: %s
    audiences: [lanyard]
    certificateAuthority: %q
  claimMappings:%s
`, i.URL, i.ca(), mappings)
}

func file(t *testing.T, entries ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "authentication.yaml")
	save(t, path, entries...)
	return path
}

func save(t *testing.T, path string, entries ...string) {
	t.Helper()
	text := header + "jwt:" + strings.Join(entries, "")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs an authenticator and waits until every issuer has responded.
func start(t *testing.T, path string) *Authenticator {
	t.Helper()
	a, err := Open(Config{File: path, Issuers: []string{"https://own.example"}, Audiences: []string{"api"}, Every: time.Millisecond, Clock: clock.RealClock{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, func() bool { now := a.current.Load(); return now != nil && now.health() == nil })
	return a
}

func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) { return holds(), nil })
	if err != nil {
		t.Fatal("the condition did not become true")
	}
}

func signIn(t *testing.T, a *Authenticator, text string) (string, error) {
	t.Helper()
	response, ok, err := a.AuthenticateToken(authenticator.WithAudiences(t.Context(), []string{"api"}), text)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", nil
	}
	return fmt.Sprint(response.User.GetName(), " ", response.User.GetGroups()), nil
}

// TestSignIn checks which tokens of two issuers are accepted, and as which user.
func TestSignIn(t *testing.T) {
	t.Parallel()
	one, two, unknown := startIssuer(t), startIssuer(t), startIssuer(t)
	a := start(t, file(t, entry(one, claims), entry(two, `
    username: {expression: "'two:' + claims.sub"}
    groups: {expression: "claims.roles"}
  claimValidationRules:
  - {expression: "claims.email_verified == true", message: "the address must be verified"}
  userValidationRules:
  - {expression: "!user.groups.exists(g, g.startsWith('system:'))", message: "reserved group"}`)))
	hourAgo := time.Now().Add(-time.Hour).Unix()
	for name, c := range map[string]struct {
		token, want, refusal string
	}{
		"claims":                {one.token(t, map[string]any{"groups": []string{"dev", "system:masters"}}), "jane [idp:dev idp:system:masters]", ""},
		"no groups":             {one.token(t, nil), "jane []", ""},
		"audience among more":   {one.token(t, map[string]any{"aud": []string{"x", "lanyard"}}), "jane []", ""},
		"expired":               {one.token(t, map[string]any{"exp": hourAgo}), "", "token is expired"},
		"another audience":      {one.token(t, map[string]any{"aud": "other"}), "", "expected audience"},
		"no name":               {one.token(t, map[string]any{"sub": ""}), "", "username"},
		"reserved name":         {one.token(t, map[string]any{"sub": "system:admin"}), "", "the prefix \"system:\" is reserved"},
		"forged":                {one.token(t, nil)[:80] + two.token(t, nil)[80:], "", "oidc"},
		"signed by another":     {two.token(t, map[string]any{"iss": one.URL}), "", "failed to verify"},
		"unknown issuer":        {unknown.token(t, nil), "", ""},
		"no JWT":                {"opaque", "", ""},
		"expressions":           {two.token(t, map[string]any{"email_verified": true, "roles": []string{"dev"}}), "two:jane [dev]", ""},
		"claim rule":            {two.token(t, map[string]any{"email_verified": false, "roles": []string{}}), "", "the address must be verified"},
		"user rule":             {two.token(t, map[string]any{"email_verified": true, "roles": []string{"system:masters"}}), "", "reserved group"},
		"claim that is no list": {two.token(t, map[string]any{"email_verified": true, "roles": 7}), "", "oidc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := signIn(t, a, c.token)
			if got != c.want {
				t.Errorf("signed in as %q, want %q (%v)", got, c.want, err)
			}
			if (err == nil) != (c.refusal == "") || err != nil && !strings.Contains(err.Error(), c.refusal) {
				t.Errorf("refused with %v, want %q", err, c.refusal)
			}
			if err != nil && strings.Contains(err.Error(), c.token) {
				t.Error("the refusal shows the token")
			}
		})
	}
}

// TestIssuerIsUnavailable checks that a token is neither accepted nor refused if its key cannot be read, and that a
// forged token is refused.
func TestIssuerIsUnavailable(t *testing.T) {
	t.Parallel()
	away := startIssuer(t)
	away.Close()
	path := file(t, entry(away, claims))
	a, err := Open(Config{File: path, Audiences: []string{"api"}, Clock: clock.RealClock{}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := a.build(t.Context(), a.first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.end)
	a.current.Store(first)
	if _, err := signIn(t, a, away.token(t, nil)); outage.Of(err) == nil {
		t.Errorf("no keys yet: %v, want an outage", err)
	}

	i, stranger := startIssuer(t), startIssuer(t)
	b := start(t, file(t, entry(i, claims)))
	if _, err := signIn(t, b, i.token(t, nil)); err != nil {
		t.Errorf("known keys: %v", err)
	}
	if _, err := signIn(t, b, stranger.token(t, map[string]any{"iss": i.URL})); err == nil || outage.Of(err) != nil {
		t.Errorf("forged: %v, want a refusal", err)
	}
	_, rest, _ := strings.Cut(i.token(t, nil), ".")
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"failed to verify signature: fetching keys ","kid":"first"}`))
	if _, err := signIn(t, b, header+"."+rest); err == nil || !strings.Contains(err.Error(), "fetching keys") || outage.Of(err) != nil {
		t.Errorf("forged, with the text of an outage: %v, want a refusal that quotes them", err)
	}
	i.Close()
	i.rotate(t, "second")
	if _, err := signIn(t, b, i.token(t, nil)); outage.Of(err) == nil {
		t.Errorf("a key that cannot be read: %v, want an outage", err)
	}
}

// TestReservedNames checks that an issuer cannot name system:masters, unless the configuration has a prefix or an expression.
func TestReservedNames(t *testing.T) {
	t.Parallel()
	i := startIssuer(t)
	token := i.token(t, map[string]any{"sub": "eve", "groups": []string{"dev", "system:masters"}})
	for mappings, want := range map[string]string{
		`{username: {claim: sub, prefix: ""}, groups: {claim: groups, prefix: ""}}`:                 "",
		`{username: {claim: sub, prefix: ""}, groups: {claim: groups, prefix: "idp:"}}`:             "eve [idp:dev idp:system:masters]",
		`{username: {claim: sub, prefix: "system:u:"}, groups: {claim: groups, prefix: "g:"}}`:      "system:u:eve [g:dev g:system:masters]",
		`{username: {claim: sub, prefix: ""}, groups: {expression: "['system:masters', 'staff']"}}`: "eve [system:masters staff]",
	} {
		a := start(t, file(t, entry(i, " "+mappings)))
		if got, err := signIn(t, a, token); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: signed in as %q, want %q (%v)", mappings, got, want, err)
		}
	}
}

// TestOtherAudience checks that tokens are not accepted for the audience of another server.
func TestOtherAudience(t *testing.T) {
	t.Parallel()
	i := startIssuer(t)
	a := start(t, file(t, entry(i, claims)))
	_, ok, err := a.AuthenticateToken(authenticator.WithAudiences(t.Context(), []string{"vault"}), i.token(t, nil))
	if ok || err != nil {
		t.Errorf("a review for another audience: %v, %v", ok, err)
	}
}

// TestKeyRotation checks that tokens are accepted after the issuer has changed its key.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	i := startIssuer(t)
	a := start(t, file(t, entry(i, claims)))
	if _, err := signIn(t, a, i.token(t, nil)); err != nil {
		t.Fatal(err)
	}
	i.rotate(t, "second")
	if got, err := signIn(t, a, i.token(t, nil)); got != "jane []" {
		t.Errorf("after rotation: %q, %v", got, err)
	}
}

// TestReload checks that a changed file is applied, and that one with a fault is not.
func TestReload(t *testing.T) {
	t.Parallel()
	one, two := startIssuer(t), startIssuer(t)
	path := file(t, entry(one, claims))
	a := start(t, path)
	first, second := one.token(t, nil), two.token(t, nil)
	accepts := func(token string) bool { got, err := signIn(t, a, token); return err == nil && got == "jane []" }

	before := a.current.Load()
	for _, bad := range []string{"nonsense: [", header + "jwt: [{}]", "apiVersion: v1\nkind: Pod\n", header + "anonymous: {enabled: false}\n"} {
		if retry, err := a.replace(t.Context(), []byte(bad)); retry || err == nil {
			t.Errorf("%q: retry %v, %v", bad, retry, err)
		}
	}
	if a.current.Load() != before || !accepts(first) {
		t.Fatal("a bad configuration took effect")
	}
	save(t, path, entry(one, claims), entry(two, claims))
	eventually(t, func() bool { return accepts(second) })
	if !accepts(first) {
		t.Error("the first issuer was lost")
	}
	save(t, path, entry(two, claims))
	eventually(t, func() bool { return !accepts(first) })
	if !accepts(second) {
		t.Error("the second issuer was lost")
	}
}

// TestOpenRefuses checks the errors of files that Open does not accept.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"empty":         {"", "the file is empty"},
		"two documents": {header + "---\n" + header, "several YAML documents"},
		"no YAML":       {"a: [", "yaml"},
		"another kind":  {"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: []\n", "not an AuthenticationConfiguration"},
		"unknown field": {header + "jwts: []\n", `unknown field "jwts"`},
		"own issuer":    {header + "jwt: [{issuer: {url: 'https://own.example', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]\n", "URL must not overlap with disallowed issuers"},
		"plain http":    {header + "jwt: [{issuer: {url: 'http://a.example', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]\n", "URL scheme must be https"},
		"no audience":   {header + "jwt: [{issuer: {url: 'https://a.example'}, claimMappings: {username: {claim: sub, prefix: ''}}}]\n", "jwt[0].issuer.audiences: Required value"},
		"bad CEL":       {header + "jwt: [{issuer: {url: 'https://a.example', audiences: [a]}, claimMappings: {username: {expression: 'claims.'}}}]\n", "claimMappings.username.expression"},
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Config{File: path, Issuers: []string{"https://own.example"}, Clock: clock.RealClock{}})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := Open(Config{File: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("Open accepts a file that does not exist")
	}
}

// FuzzLoad checks that every issuer of an accepted configuration uses https, has an audience, and is another server.
func FuzzLoad(f *testing.F) {
	l := newLoader([]string{"https://own.example"})
	f.Add([]byte(header + "jwt: [{issuer: {url: 'https://a.example', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]\n"))
	f.Add([]byte(header + "anonymous: {enabled: true, conditions: [{path: /livez}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := l.load(data)
		if err != nil {
			return
		}
		for _, j := range config.JWT {
			if !strings.HasPrefix(j.Issuer.URL, "https://") || slices.Contains(l.own, j.Issuer.URL) || len(j.Issuer.Audiences) == 0 {
				t.Errorf("accepted %+v", j.Issuer)
			}
		}
	})
}

// issuer is an OpenID Connect provider with one key at a time.
type issuer struct {
	*httptest.Server
	mu  sync.Mutex
	kid string
	key *ecdsa.PrivateKey
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.rotate(t, "first")
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.URL, "jwks_uri": i.URL + "/keys", "authorization_endpoint": i.URL + "/auth",
			"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: i.kid, Algorithm: "ES256", Use: "sig"}}})
	})
	i.Server = httptest.NewTLSServer(mux)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) rotate(t *testing.T, kid string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kid, i.key = kid, key
}

func (i *issuer) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}))
}

// token returns a token for the audience lanyard that is valid for an hour. claims replace and add claims.
func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	all := map[string]any{"iss": i.URL, "aud": "lanyard", "sub": "jane", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.key}, (&jose.SignerOptions{}).WithHeader("kid", i.kid))
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(all).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
