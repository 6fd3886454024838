package authn

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/token"
)

// countingTokens is an authenticator that counts verifications. It accepts tokens that begin with "good", and refuses those
// that begin with "gone" because their account is gone, and all others because of their signature.
type countingTokens struct{ verified int }

func (c *countingTokens) AuthenticateToken(_ context.Context, text string) (*authenticator.Response, bool, error) {
	c.verified++
	switch {
	case strings.HasPrefix(text, "good"):
		return &authenticator.Response{User: &user.DefaultInfo{Name: "known"}}, true, nil
	case strings.HasPrefix(text, "gone"):
		return nil, false, fmt.Errorf("%w: really", token.ErrAccountGone)
	}
	return nil, false, token.ErrBadSignature
}

// guardedServer is an authenticator with a guard and a clock that the test sets.
type guardedServer struct {
	clock  *clocktesting.FakePassiveClock
	tokens countingTokens
	lines  []string
	auth   authenticator.Request
}

// unrevoked is Credentials of which none was revoked.
type unrevoked struct{}

func (unrevoked) CheckCertificate(string, *x509.Certificate) error { return nil }
func (unrevoked) Used(_, _ string)                                 {}

func newGuardedServer() *guardedServer {
	g := &guardedServer{clock: clocktesting.NewFakePassiveClock(time.Now())}
	guard := newGuard(g.clock, func(line string) { g.lines = append(g.lines, line) })
	g.auth = NewRequest(RequestConfig{Tokens: &g.tokens, Guard: guard, Credentials: unrevoked{}})
	return g
}

// present sends a request with a token from an address, and returns why it is refused, or nil.
func (g *guardedServer) present(address, text string) error {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/pods?secret=query", nil)
	r.RemoteAddr = address
	r.Header.Set("Authorization", "Bearer "+text)
	r.Header.Set("User-Agent", "agent \x1b[31m\n\"x\"")
	_, _, _ = g.auth.AuthenticateRequest(r)
	return Refusal(r.Context())
}

// TestForgedTokensAreThrottled checks that forged tokens beyond the limit are not verified, and that they do not stop clients
// at other addresses, nor clients at the same address whose token was valid before.
func TestForgedTokensAreThrottled(t *testing.T) {
	t.Parallel()
	g := newGuardedServer()
	const attacker, other = "192.0.2.1:1000", "192.0.2.2:1000"
	if err := g.present(attacker, "good-known"); err != nil {
		t.Fatal(err)
	}
	g.tokens.verified = 0
	for i := range 10 * forgedBurst {
		_ = g.present(attacker, fmt.Sprintf("forged-%d", i))
	}
	if g.tokens.verified != forgedBurst {
		t.Errorf("%d forged tokens were verified, want %d", g.tokens.verified, forgedBurst)
	}
	for _, tt := range []struct {
		what, address, text string
		want                error
	}{
		{"a token of the same address that was good before", attacker, "good-known", nil},
		{"a new token of the same address", attacker, "good-new", ErrThrottled},
		{"a new token of another address", other, "good-other", nil},
		{"a forged token of another address", other, "forged", token.ErrBadSignature},
	} {
		if err := g.present(tt.address, tt.text); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
		}
	}
	g.clock.SetTime(g.clock.Now().Add(time.Second))
	if err := g.present(attacker, "good-new"); err != nil {
		t.Errorf("a new token a second later: %v", err)
	}
}

// TestGenuineTokensAreNotThrottled checks that clients whose account is gone do not stop others at their address.
func TestGenuineTokensAreNotThrottled(t *testing.T) {
	t.Parallel()
	g := newGuardedServer()
	for i := range 2 * forgedBurst {
		if err := g.present("192.0.2.1:1", fmt.Sprintf("gone-%d", i)); !errors.Is(err, token.ErrAccountGone) {
			t.Fatalf("token %d: %v", i, err)
		}
	}
	if err := g.present("192.0.2.1:1", "good-new"); err != nil {
		t.Errorf("a new token of the same address: %v", err)
	}
}

// TestRefusalLine checks that the line about a refusal names its origin, escapes it, and contains no credential.
func TestRefusalLine(t *testing.T) {
	t.Parallel()
	segment := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	text := segment(`{"alg":"ES256","kid":"key-1"}`) + "." + segment(`{"iss":"i","jti":"id\u001b`+strings.Repeat("x", 100)+`"}`) + ".c2lnbmF0dXJl"
	g := newGuardedServer()
	_ = g.present("192.0.2.1:4711", text)
	want := `Refused the credential of a request reason="invalid signature" client="192.0.2.1:4711" userAgent="agent \x1b[31m\n\"x\"" method="GET" path="/api/v1/pods" kid="key-1" jti="id\x1b` + strings.Repeat("x", maxID-3) + `"`
	if len(g.lines) != 1 || g.lines[0] != want {
		t.Errorf("lines %q, want one\n%s", g.lines, want)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Basic c2VjcmV0")
	_, _, _ = g.auth.AuthenticateRequest(r)
	if line := g.lines[len(g.lines)-1]; strings.Contains(line, "c2VjcmV0") || !strings.Contains(line, "Authorization header") {
		t.Errorf("line %q", line)
	}
}

// TestLinesAreBounded checks that neither one address nor many can fill the log, and that refusals without a line are counted.
func TestLinesAreBounded(t *testing.T) {
	t.Parallel()
	g := newGuardedServer()
	for range 1000 {
		_ = g.present("192.0.2.1:1", "gone")
	}
	if len(g.lines) != linesBurst {
		t.Errorf("%d lines for a thousand refusals of one address, want %d", len(g.lines), linesBurst)
	}
	g.clock.SetTime(g.clock.Now().Add(time.Minute))
	_ = g.present("192.0.2.1:2", "gone")
	if last := g.lines[len(g.lines)-1]; !strings.HasSuffix(last, fmt.Sprintf(" unlogged=%d", 1000-linesBurst)) {
		t.Errorf("the next line is %q, want the count %d in it", last, 1000-linesBurst)
	}
	g = newGuardedServer()
	for i := range 2 * sourcesKept {
		_ = g.present(fmt.Sprintf("10.0.%d.%d:1", i>>8, i&255), "gone")
	}
	if len(g.lines) != allBurst {
		t.Errorf("%d lines for refusals of many addresses, want %d", len(g.lines), allBurst)
	}
	guard := g.auth.(*loggingRequest).guard
	if kept, counted := guard.sources.Len(), guard.unlogged.Load(); kept != sourcesKept || counted == 0 {
		t.Errorf("%d addresses are remembered, want %d; %d refusals of other addresses are counted", kept, sourcesKept, counted)
	}
}

// TestTokenMemoryIsBounded checks that old tokens are forgotten, and that a token in use is not.
func TestTokenMemoryIsBounded(t *testing.T) {
	t.Parallel()
	g := newTokenMemory()
	for i := range 5 * tokensKept {
		g.add(fmt.Sprint(i))
		g.add("in use")
	}
	if n := len(g.current) + len(g.previous); n > 2*tokensKept {
		t.Errorf("%d tokens are remembered, want at most %d", n, 2*tokensKept)
	}
	if !g.has("in use") || g.has("0") {
		t.Errorf("remembers the token in use: %v, a token not used for long: %v", g.has("in use"), g.has("0"))
	}
}

func BenchmarkTokenMemory(b *testing.B) {
	g, text := newTokenMemory(), strings.Repeat("x", 1000)
	g.add(text)
	b.ReportAllocs()
	for b.Loop() {
		if !g.has(text) {
			b.Fatal("forgotten")
		}
		g.add(text)
	}
}

// TestTokenMemory checks that a token is remembered until twice tokensKept others have been added.
func TestTokenMemory(t *testing.T) {
	t.Parallel()
	g := newTokenMemory()
	others := 0
	g.add("good")
	for _, want := range []bool{true, false} {
		for range tokensKept {
			if !g.has("good") {
				t.Fatalf("forgotten after %d others", others)
			}
			others++
			g.add(fmt.Sprint("other-", others))
		}
		if got := g.has("good"); got != want {
			t.Errorf("after %d others: remembered %v, want %v", others, got, want)
		}
	}
	if n := len(g.current) + len(g.previous); n > 2*tokensKept {
		t.Errorf("%d are remembered, want at most %d", n, 2*tokensKept)
	}
}

// TestRequestWithoutOpinion checks that a request is refused if no authenticator accepts or refuses it.
func TestRequestWithoutOpinion(t *testing.T) {
	t.Parallel()
	silent := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) { return nil, false, nil })
	a := &loggingRequest{Request: silent, guard: newGuard(clocktesting.NewFakePassiveClock(time.Now()), func(string) {})}
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	if _, ok, err := a.AuthenticateRequest(r); ok || err != nil || !errors.Is(Refusal(r.Context()), errNoCredential) {
		t.Errorf("got %v, %v with the reason %v, want %v", ok, err, Refusal(r.Context()), errNoCredential)
	}
}
