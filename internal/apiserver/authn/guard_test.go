package authn

import (
	"context"
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

// counting is an authenticator of tokens that counts what it looks at. It knows those that start with "good", refuses
// those that start with "gone" as tokens of an account that is gone, and has never heard of others.
type counting struct{ verified int }

func (c *counting) AuthenticateToken(_ context.Context, text string) (*authenticator.Response, bool, error) {
	c.verified++
	switch {
	case strings.HasPrefix(text, "good"):
		return &authenticator.Response{User: &user.DefaultInfo{Name: "known"}}, true, nil
	case strings.HasPrefix(text, "gone"):
		return nil, false, fmt.Errorf("%w: really", token.ErrAccountGone)
	}
	return nil, false, token.ErrBadSignature
}

// guarded is a server behind a guard, at a time that the test sets.
type guarded struct {
	clock  *clocktesting.FakePassiveClock
	tokens counting
	lines  []string
	auth   authenticator.Request
}

func newGuarded() *guarded {
	g := &guarded{clock: clocktesting.NewFakePassiveClock(time.Now())}
	guard := newGuard(g.clock, func(line string) { g.lines = append(g.lines, line) })
	g.auth = NewRequest(RequestConfig{Tokens: &g.tokens, Guard: guard})
	return g
}

// present returns why a token from an address is refused, or nil.
func (g *guarded) present(address, text string) error {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/pods?secret=query", nil)
	r.RemoteAddr = address
	r.Header.Set("Authorization", "Bearer "+text)
	r.Header.Set("User-Agent", "agent \x1b[31m\n\"x\"")
	_, _, _ = g.auth.AuthenticateRequest(r)
	return Refusal(r.Context())
}

// TestForgedTokensAreBounded: beyond the limit a forged token costs no verification, and harms neither other addresses
// nor those at the same address who are known, or hold a token that has ended.
func TestForgedTokensAreBounded(t *testing.T) {
	t.Parallel()
	g := newGuarded()
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

// TestEndedTokensAreNotForged: clients whose account is gone do not lock out others at their address.
func TestEndedTokensAreNotForged(t *testing.T) {
	t.Parallel()
	g := newGuarded()
	for i := range 2 * forgedBurst {
		if err := g.present("192.0.2.1:1", fmt.Sprintf("gone-%d", i)); !errors.Is(err, token.ErrAccountGone) {
			t.Fatalf("token %d: %v", i, err)
		}
	}
	if err := g.present("192.0.2.1:1", "good-new"); err != nil {
		t.Errorf("a new token of the same address: %v", err)
	}
}

// TestRefusalsAreTraceable: a line says where a refused credential came from, and nothing that should not be there.
func TestRefusalsAreTraceable(t *testing.T) {
	t.Parallel()
	segment := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	text := segment(`{"alg":"ES256","kid":"key-1"}`) + "." + segment(`{"iss":"i","jti":"id\u001b`+strings.Repeat("x", 100)+`"}`) + ".c2lnbmF0dXJl"
	g := newGuarded()
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

// TestLinesAreBounded: neither one address nor many fill the log, and what is not logged is counted.
func TestLinesAreBounded(t *testing.T) {
	t.Parallel()
	g := newGuarded()
	for range 1000 {
		_ = g.present("192.0.2.1:1", "gone")
	}
	if len(g.lines) != linesBurst {
		t.Errorf("%d lines for a thousand refusals of one address, want %d", len(g.lines), linesBurst)
	}
	g.clock.SetTime(g.clock.Now().Add(time.Minute))
	_ = g.present("192.0.2.1:2", "gone")
	if last := g.lines[len(g.lines)-1]; !strings.HasSuffix(last, fmt.Sprintf(" unlogged=%d", 1000-linesBurst)) {
		t.Errorf("the next line is %q, want it to count the %d before", last, 1000-linesBurst)
	}
	g = newGuarded()
	for i := range 2 * sourcesKept {
		_ = g.present(fmt.Sprintf("10.0.%d.%d:1", i>>8, i&255), "gone")
	}
	if len(g.lines) != allBurst {
		t.Errorf("%d lines for refusals of many addresses, want %d", len(g.lines), allBurst)
	}
	guard := g.auth.(*explained).guard
	if kept, counted := guard.sources.Len(), guard.unlogged.Load(); kept != sourcesKept || counted == 0 {
		t.Errorf("%d addresses are remembered, want %d; %d refusals of others are counted", kept, sourcesKept, counted)
	}
}

// TestGoodTokensAreBounded: the tokens remembered are bounded, and one in use is not forgotten.
func TestGoodTokensAreBounded(t *testing.T) {
	t.Parallel()
	g := newGoodTokens()
	for i := range 5 * tokensKept {
		g.add(fmt.Sprint(i))
		g.add("in use")
	}
	if n := len(g.current) + len(g.last); n > 2*tokensKept {
		t.Errorf("%d tokens are remembered, want at most %d", n, 2*tokensKept)
	}
	if !g.has("in use") || g.has("0") {
		t.Errorf("remembers the token in use: %v, one long unused: %v", g.has("in use"), g.has("0"))
	}
}

func BenchmarkGoodTokens(b *testing.B) {
	g, text := newGoodTokens(), strings.Repeat("x", 1000)
	g.add(text)
	b.ReportAllocs()
	for b.Loop() {
		if !g.has(text) {
			b.Fatal("forgotten")
		}
		g.add(text)
	}
}

// TestGoodTokensAreRemembered until twice as many others as are kept have come.
func TestGoodTokensAreRemembered(t *testing.T) {
	t.Parallel()
	g := newGoodTokens()
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
	if n := len(g.current) + len(g.last); n > 2*tokensKept {
		t.Errorf("%d are remembered, want at most %d", n, 2*tokensKept)
	}
}

// TestNobodyIsRefused: a request that no authenticator knows or refuses has no user, so it does not go on.
func TestNobodyIsRefused(t *testing.T) {
	t.Parallel()
	silent := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) { return nil, false, nil })
	e := &explained{Request: silent, guard: newGuard(clocktesting.NewFakePassiveClock(time.Now()), func(string) {})}
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	if _, ok, err := e.AuthenticateRequest(r); ok || err != nil || !errors.Is(Refusal(r.Context()), errNoCredential) {
		t.Errorf("got %v, %v with the reason %v, want %v", ok, err, Refusal(r.Context()), errNoCredential)
	}
}
