package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/signingkey"
)

var testNow = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// testKey returns the same key in every run, because golden files contain its thumbprint.
func testKey(t *testing.T, seed byte) *signingkey.PrivateKey {
	t.Helper()
	raw, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		t.Fatal(err)
	}
	key, err := signingkey.NewPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type claims map[string]any

func accountClaims() claims {
	return claims{
		"iss": "https://issuer.example",
		"sub": "system:serviceaccount:default:build",
		"aud": []string{"vault"},
		"iat": testNow.Add(-3 * time.Minute).Unix(),
		"nbf": testNow.Add(-3 * time.Minute).Unix(),
		"exp": testNow.Add(57 * time.Minute).Unix(),
		"jti": "2f9e2b0a-5a5b-4c57-a1ff-1d1b8f0b8a11",
		"kubernetes.io": claims{
			"namespace":      "default",
			"serviceaccount": claims{"name": "build", "uid": "6d2f7d1a-0c58-4c9b-8c39-0f2d6f3f8a22"},
		},
	}
}

func (c claims) with(name string, value any) claims {
	c[name] = value
	return c
}

func (c claims) sign(t *testing.T, key *signingkey.PrivateKey) string {
	t.Helper()
	header, err := json.Marshal(map[string]string{"alg": string(key.Algorithm()), "kid": key.ID()})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	input := encode(header) + "." + encode(payload)
	signature, err := key.Sign([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + encode(signature)
}

func signature(token string) string { return token[strings.LastIndex(token, ".")+1:] }

// runAt runs one token command with the clock at testNow.
func runAt(stdin string, create func(streams, clock.PassiveClock) *cobra.Command, args ...string) result {
	var out, errOut bytes.Buffer
	s := streams{in: strings.NewReader(stdin), out: &out, err: &errOut}
	cmd := create(s, clocktesting.NewFakePassiveClock(testNow))
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(notNil(args))
	code := s.report(cmd.Execute())
	return result{code, out.String(), errOut.String()}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	key := testKey(t, 1)
	tests := map[string]struct {
		claims    claims
		args      []string
		stdinOnly bool
	}{
		"text":          {accountClaims(), nil, false},
		"json":          {accountClaims(), []string{"-o", "json"}, false},
		"yaml":          {accountClaims(), []string{"-o", "yaml", "-"}, true},
		"expired":       {accountClaims().with("exp", testNow.Add(-49*time.Hour).Unix()), nil, false},
		"not_yet_valid": {accountClaims().with("nbf", testNow.Add(90*time.Second).Unix()), nil, false},
		"foreign":       {claims{"sub": "alice\u202e\x1b[2J", "aud": "x", "exp": "soon"}, nil, false},
		"no_expiry":     {claims{"sub": "alice"}, nil, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token := test.claims.sign(t, key)
			got := runAt(token+"\n", newTokenInspectAt, test.args...)
			if got.code != 0 || got.errOut != "" {
				t.Errorf("exit code %d, standard error %q", got.code, got.errOut)
			}
			if strings.Contains(got.out, signature(token)) {
				t.Error("the signature is printed")
			}
			checkGolden(t, filepath.Join("inspect", name+".txt"), got.out)
			if test.stdinOnly {
				return
			}
			if asArgument := runAt("", newTokenInspectAt, append(slices.Clone(test.args), token)...); asArgument.out != got.out {
				t.Errorf("as an argument: %+v", asArgument)
			}
		})
	}
}

func TestInspectRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ stdin, want string }{
		"nothing": {" \n", "lanyard: standard input contains no token\n"},
		"a word":  {"hello", "lanyard: not a signed JSON web token in compact form: it has no dots; a token is three parts with a dot between them\n"},
		"letters": {"a.b.c", "lanyard: not a signed JSON web token in compact form: its first part, the header, is not base64url\n"},
		"too big": {strings.Repeat("a", 20<<10), "lanyard: token is larger than 16 KiB\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runAt(test.stdin, newTokenInspectAt)
			if got.code != exitFailure || got.out != "" || !strings.HasPrefix(got.errOut, test.want+"hint: ") {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestInspectNotesAMissingSignature(t *testing.T) {
	t.Parallel()
	token := accountClaims().sign(t, testKey(t, 1))
	unsigned := strings.TrimSuffix(token, signature(token))
	got := runAt(unsigned, newTokenInspectAt)
	if want := "note: no server accepts this token: its third part, the signature, is empty\n"; got.code != 0 || got.errOut != want {
		t.Errorf("%+v", got)
	}
}

func writeFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func jwks(t *testing.T, key *signingkey.PrivateKey) []byte {
	t.Helper()
	set, err := signingkey.NewSet(key)
	if err != nil {
		t.Fatal(err)
	}
	return set.JWKS()
}

func TestVerifyWithFile(t *testing.T) {
	t.Parallel()
	key := testKey(t, 1)
	file := writeFile(t, jwks(t, key))
	tests := map[string]struct {
		token string
		args  []string
		code  int
	}{
		"all_given":     {accountClaims().sign(t, key), []string{"--issuer", "https://issuer.example", "--audience", "x", "--audience", "vault"}, 0},
		"issuer_given":  {accountClaims().sign(t, key), []string{"--issuer", "https://issuer.example"}, 0},
		"nothing_given": {accountClaims().sign(t, key), nil, 0},
		"json":          {accountClaims().sign(t, key), []string{"--audience", "vault", "-o", "json"}, 0},
		"audience":      {accountClaims().sign(t, key), []string{"--audience", "other"}, 1},
		"issuer":        {accountClaims().sign(t, key), []string{"--issuer", "https://other.example"}, 1},
		"expired":       {accountClaims().with("exp", testNow.Unix()).sign(t, key), nil, 1},
		"not_yet_valid": {accountClaims().with("nbf", testNow.Add(time.Hour).Unix()).sign(t, key), nil, 1},
		"other_key":     {accountClaims().sign(t, testKey(t, 2)), nil, 1},
		"subject":       {accountClaims().with("sub", "system:serviceaccount:default:admin").sign(t, key), nil, 1},
		"junk":          {"junk", nil, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runAt(test.token, newTokenVerifyAt, append(test.args, "--jwks", file)...)
			if got.code != test.code {
				t.Errorf("exit code %d, want %d", got.code, test.code)
			}
			if s := signature(test.token); strings.Contains(test.token, ".") && strings.Contains(got.out+got.errOut, s) {
				t.Error("the signature is printed")
			}
			checkGolden(t, filepath.Join("verify", name+".txt"), got.out+"-- stderr --\n"+got.errOut)
		})
	}
}

func TestTamperedTokenIsRefused(t *testing.T) {
	t.Parallel()
	key := testKey(t, 1)
	file := writeFile(t, jwks(t, key))
	good, other := accountClaims().sign(t, key), accountClaims().with("aud", []string{"bank"}).sign(t, key)
	parts, otherParts := strings.Split(good, "."), strings.Split(other, ".")
	forged := parts[0] + "." + otherParts[1] + "." + parts[2]
	got := runAt(forged, newTokenVerifyAt, "--jwks", file)
	if got.code != exitFailure || !strings.Contains(got.errOut, "invalid signature") {
		t.Errorf("%+v", got)
	}
}

func TestVerifyBadFiles(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		want string
	}{
		"no file":  {[]string{"--jwks", "/nonexistent/jwks"}, "no such file"},
		"no keys":  {[]string{"--jwks", writeFile(t, []byte("{}"))}, "not a JSON Web Key Set"},
		"too big":  {[]string{"--jwks", writeFile(t, make([]byte, maxDocument+1))}, "is larger than 1024 KiB"},
		"no CA":    {[]string{"--issuer", "https://127.0.0.1:1", "--certificate-authority", writeFile(t, nil)}, "contains no certificate"},
		"no reply": {[]string{"--issuer", "https://127.0.0.1:1"}, "connection refused"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runAt("a.b.c", newTokenVerifyAt, test.args...)
			if got.code != exitFailure || !strings.Contains(got.errOut, test.want) {
				t.Errorf("%+v, want %q", got, test.want)
			}
		})
	}
}

// issuerServer is an issuer. A test may replace its answers.
type issuerServer struct {
	*httptest.Server
	caFile  string
	answers map[string]http.HandlerFunc
}

const (
	discoveryPath = "/.well-known/openid-configuration"
	jwksPath      = "/openid/v1/jwks"
)

func newIssuer(t *testing.T, keys []byte) *issuerServer {
	t.Helper()
	i := &issuerServer{answers: map[string]http.HandlerFunc{}}
	i.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer := i.answers[r.URL.Path]; answer != nil {
			answer(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	// The tests include refused handshakes, which the server would log.
	i.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	i.Server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	i.Server.StartTLS()
	t.Cleanup(i.Close)
	i.caFile = writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}))
	i.answers[discoveryPath] = i.document(i.URL, i.URL+jwksPath)
	i.answers[jwksPath] = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keys) }
	return i
}

func (i *issuerServer) document(issuer, uri string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, issuer, uri)
	}
}

func TestVerifyThroughDiscovery(t *testing.T) {
	t.Parallel()
	key := testKey(t, 1)
	issuer := newIssuer(t, jwks(t, key))
	token := accountClaims().with("iss", issuer.URL).sign(t, key)
	got := runAt(token, newTokenVerifyAt, "--issuer", issuer.URL, "--certificate-authority", issuer.caFile, "--audience", "vault")
	if got.code != 0 || got.errOut != "" || !strings.HasPrefix(got.out, "verified: ") {
		t.Errorf("%+v", got)
	}
}

func TestDiscoveryRefuses(t *testing.T) {
	t.Parallel()
	elsewhere := newIssuer(t, nil)
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	text := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
	}
	tests := map[string]struct {
		path   string
		answer func(i *issuerServer) http.HandlerFunc
		want   string
	}{
		"another issuer":   {discoveryPath, func(i *issuerServer) http.HandlerFunc { return i.document("https://evil.example", i.URL+jwksPath) }, `is the document of another issuer, "https://evil.example"`},
		"trailing slash":   {discoveryPath, func(i *issuerServer) http.HandlerFunc { return i.document(i.URL+"/", i.URL+jwksPath) }, "is the document of another issuer"},
		"plain http keys":  {discoveryPath, func(i *issuerServer) http.HandlerFunc { return i.document(i.URL, "http://127.0.0.1/jwks") }, "must be an https:// URL"},
		"no document":      {discoveryPath, func(*issuerServer) http.HandlerFunc { return text("<html>") }, "is not a discovery document"},
		"redirect":         {discoveryPath, func(*issuerServer) http.HandlerFunc { return redirect(elsewhere.URL + discoveryPath) }, "redirected to another host"},
		"redirect of keys": {jwksPath, func(*issuerServer) http.HandlerFunc { return redirect(elsewhere.URL) }, "redirected to another host"},
		"downgrade":        {jwksPath, func(i *issuerServer) http.HandlerFunc { return redirect("http://" + i.Listener.Addr().String()) }, "redirected to another host"},
		"loop":             {jwksPath, func(*issuerServer) http.HandlerFunc { return redirect(jwksPath) }, "redirected too often"},
		"not found":        {jwksPath, func(*issuerServer) http.HandlerFunc { return status(404) }, `answered "404 Not Found"`},
		"unauthorized":     {jwksPath, func(*issuerServer) http.HandlerFunc { return status(401) }, "the issuer requires authentication"},
		"endless":          {jwksPath, func(*issuerServer) http.HandlerFunc { return text(strings.Repeat(" ", maxDocument+1)) }, "is larger than 1024 KiB"},
		"no keys":          {jwksPath, func(*issuerServer) http.HandlerFunc { return text("[]") }, "not a JSON Web Key Set"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer := newIssuer(t, jwks(t, testKey(t, 1)))
			issuer.answers[test.path] = test.answer(issuer)
			got := runAt("a.b.c", newTokenVerifyAt, "--issuer", issuer.URL, "--certificate-authority", issuer.caFile)
			if got.code != exitFailure || got.out != "" || !strings.Contains(got.errOut, test.want) {
				t.Errorf("%+v, want %q", got, test.want)
			}
		})
	}
}

func TestUnknownCAHasAHint(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t, nil)
	got := runAt("a.b.c", newTokenVerifyAt, "--issuer", issuer.URL)
	if got.code != exitFailure || !strings.Contains(got.errOut, "hint: give the issuer's CA with --certificate-authority") {
		t.Errorf("%+v", got)
	}
}
