package token

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"lanyard.dev/internal/signingkey"
)

// TestIssueAgreesWithGoJOSE parses issued tokens with go-jose.
func TestIssueAgreesWithGoJOSE(t *testing.T) {
	t.Parallel()
	for _, key := range []*signingkey.PrivateKey{es256Key(), rs256Key()} {
		t.Run(string(key.Algorithm()), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, key)
			r := podRequest()
			r.Audiences = []string{testAudience, "wörld \"<&>\u2028\\", "b"}
			text, claims, err := f.issuer.Issue(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(key.Algorithm())})
			if err != nil {
				t.Fatal(err)
			}
			if h := parsed.Headers[0]; h.KeyID != key.ID() || h.Algorithm != string(key.Algorithm()) || len(h.ExtraHeaders) > 0 {
				t.Errorf("header = %+v", h)
			}
			var public jwt.Claims
			var all map[string]any
			if err := parsed.Claims(key.Public().Key(), &public, &all); err != nil {
				t.Fatal(err)
			}
			want := jwt.Claims{
				Issuer: testIssuer, Subject: "system:serviceaccount:shop:cart", Audience: jwt.Audience(r.Audiences), ID: claims.ID,
				Expiry: jwt.NewNumericDate(testNow.Add(time.Hour)), IssuedAt: jwt.NewNumericDate(testNow), NotBefore: jwt.NewNumericDate(testNow),
			}
			if diff := cmp.Diff(want, public); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			private := map[string]any{
				"namespace":      "shop",
				"serviceaccount": map[string]any{"name": "cart", "uid": "sa-1"},
				"pod":            map[string]any{"name": "cart-0", "uid": "pod-1"},
				"node":           map[string]any{"name": "n1", "uid": "node-1"},
			}
			if diff := cmp.Diff(private, all["kubernetes.io"]); diff != "" {
				t.Errorf("kubernetes.io (-want +got):\n%s", diff)
			}
			if _, err := uuid.Parse(claims.ID); err != nil {
				t.Errorf("jti %q: %v", claims.ID, err)
			}
		})
	}
}

// TestVerifyAgreesWithGoJOSE verifies tokens that go-jose signed with an accepted key. go-jose makes both forms of ECDSA
// signatures.
func TestVerifyAgreesWithGoJOSE(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key(), es256Key().Public())
	private, err := f.key.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	for range 16 {
		text := signWithGoJOSE(t, parseECDSA(t, private), f.key.ID(), []byte(payload()))
		if id, err := f.verify(text); err != nil || id.UID != "sa-1" {
			t.Errorf("Verify = %+v, %v", id, err)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	for name, change := range map[string]func(*Request){
		"no namespace":        func(r *Request) { r.Namespace = "" },
		"namespace and colon": func(r *Request) { r.Namespace = "a:b" },
		"no account":          func(r *Request) { r.ServiceAccount.Name = "" },
		"no account UID":      func(r *Request) { r.ServiceAccount.UID = "" },
		"no audience":         func(r *Request) { r.Audiences = nil },
		"empty audience":      func(r *Request) { r.Audiences = []string{"a", ""} },
		"no lifetime":         func(r *Request) { r.Lifetime = 0 },
		"under a second":      func(r *Request) { r.Lifetime = time.Second - 1 },
		"negative lifetime":   func(r *Request) { r.Lifetime = -time.Hour },
		"endless":             func(r *Request) { r.Lifetime = MaxLifetime + time.Second },
		"pod without UID":     func(r *Request) { r.Pod = &Ref{Name: "p"} },
		"pod and secret":      func(r *Request) { r.Pod, r.Secret = &Ref{"p", "1"}, &Ref{"s", "1"} },
		"secret and node":     func(r *Request) { r.Node, r.Secret = &Ref{"n", "1"}, &Ref{"s", "1"} },
	} {
		r := request()
		change(&r)
		if text, _, err := f.issuer.Issue(t.Context(), r); !errors.Is(err, ErrRequest) || text != "" {
			t.Errorf("%s: Issue = %v, want %v", name, err, ErrRequest)
		}
	}
	r := request()
	r.Audiences = []string{strings.Repeat("a", MaxSize)}
	if _, _, err := f.issuer.Issue(t.Context(), r); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Issue for an endless audience = %v, want %v", err, ErrTooLarge)
	}
	verifyOnly, err := signingkey.NewSet(nil, f.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	f.keys.rotate(verifyOnly)
	if _, _, err := f.issuer.Issue(t.Context(), request()); !errors.Is(err, signingkey.ErrNoKey) {
		t.Errorf("Issue without signer = %v, want %v", err, signingkey.ErrNoKey)
	}
}

// TestAlgorithmOfToken issues tokens with a key set that has a key for each of two algorithms.
func TestAlgorithmOfToken(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	both, err := signingkey.NewSetOf([]*signingkey.PrivateKey{es256Key(), rs256Key()})
	if err != nil {
		t.Fatal(err)
	}
	f.keys.rotate(both)
	for alg, want := range map[signingkey.Algorithm]*signingkey.PrivateKey{
		"": es256Key(), signingkey.ES256: es256Key(), signingkey.RS256: rs256Key(),
	} {
		r := request()
		r.Algorithm = alg
		text := f.issue(t, r)
		header, err := split(text)
		if err != nil || header.header != want.Header() {
			t.Errorf("%q: header %s (%v), want the one of %v", alg, header.header, err, want)
		}
		if _, err := f.verify(text); err != nil {
			t.Errorf("%q: %v", alg, err)
		}
	}
	r := request()
	r.Algorithm = signingkey.ES512
	if _, _, err := f.issuer.Issue(t.Context(), r); !errors.Is(err, signingkey.ErrNoKey) {
		t.Errorf("without a key for ES512: %v", err)
	}
}

func TestAlgorithmPolicy(t *testing.T) {
	t.Parallel()
	policy := AlgorithmPolicy{"entra": signingkey.RS256, "old": signingkey.RS256, "new": signingkey.ES256}
	for _, tt := range []struct {
		audiences []string
		want      signingkey.Algorithm
		err       string
	}{
		{audiences: nil}, {audiences: []string{"any"}},
		{audiences: []string{"any", "entra", "old", "other"}, want: signingkey.RS256},
		{audiences: []string{"new", "any"}, want: signingkey.ES256},
		{audiences: []string{"any", "old", "new"}, err: `"old" needs RS256 and "new" needs ES256`},
	} {
		got, err := policy.Algorithm(tt.audiences)
		if got != tt.want || (err != nil) != (tt.err != "") || err != nil && (!errors.Is(err, ErrAlgorithms) || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: %q, %v; want %q, %q", tt.audiences, got, err, tt.want, tt.err)
		}
	}
	if got, err := AlgorithmPolicy(nil).Algorithm([]string{"entra"}); got != "" || err != nil {
		t.Errorf("no policy: %q, %v", got, err)
	}
}

// TestBounds issues tokens at the limits of the lifetime and of the size.
func TestBounds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	for _, lifetime := range []time.Duration{time.Second, MaxLifetime} {
		r := request()
		r.Lifetime = lifetime
		if _, claims, err := f.issuer.Issue(t.Context(), r); err != nil || claims.Expiry-claims.IssuedAt != int64(lifetime/time.Second) {
			t.Errorf("a lifetime of %v: %v", lifetime, err)
		}
	}
	// One more byte of an audience makes the token one or two bytes longer, so sizes on both sides of the limit occur.
	largest := 0
	for n := MaxSize / 2; ; n++ {
		r := request()
		r.Audiences = []string{testAudience, strings.Repeat("a", n)}
		text, _, err := f.issuer.Issue(t.Context(), r)
		if errors.Is(err, ErrTooLarge) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if largest = len(text); largest < MaxSize-8 {
			n += (MaxSize - largest) / 2
		}
		if _, err := f.verify(text); err != nil {
			t.Errorf("a token of %d bytes that was issued: %v", len(text), err)
		}
	}
	if largest < MaxSize-1 {
		t.Errorf("the largest token has %d bytes, of %d allowed", largest, MaxSize)
	}
	exact := strings.Repeat("a", MaxSize-4) + ".b.c"
	if _, err := split(exact); errors.Is(err, ErrTooLarge) {
		t.Errorf("%d bytes: %v", len(exact), err)
	}
	if _, err := split("a" + exact); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d bytes: %v, want %v", len(exact)+1, err, ErrTooLarge)
	}
	for latest, want := range map[int64]error{maxTime: nil, maxTime + 1: ErrMalformed} {
		if _, err := parseClaims(fmt.Appendf(nil, `{"iss":"i","exp":%d}`, latest)); !errors.Is(err, want) {
			t.Errorf("exp %d: %v, want %v", latest, err, want)
		}
	}
}

func TestIssueDoesNotShareItsRequest(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	r := podRequest()
	_, claims, err := f.issuer.Issue(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	r.Audiences[0], r.Pod.Name = "changed", "changed"
	if claims.Audience[0] != testAudience || claims.Kubernetes.Pod.Name != "cart-0" {
		t.Error("claims changed with the request")
	}
}

func TestNewIssuerChecksURL(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	for url, ok := range map[string]bool{"https://a.example": true, "lanyard": true, "": false, "https://a b.example": false, "a:b\x00": false} {
		if _, err := NewIssuer(url, NewKeySigner(f.keys), f.clock); (err == nil) != ok {
			t.Errorf("NewIssuer(%q) = %v", url, err)
		}
	}
}

func TestLifetime(t *testing.T) {
	t.Parallel()
	seconds := func(n int64) *int64 { return &n }
	for _, tt := range []struct {
		name      string
		policy    LifetimePolicy
		requested *int64
		want      time.Duration
		capped    bool
		err       string
	}{
		{"default", LifetimePolicy{}, nil, time.Hour, false, ""},
		{"least", LifetimePolicy{}, seconds(600), 10 * time.Minute, false, ""},
		{"too short", LifetimePolicy{}, seconds(599), 0, false, "may not specify a duration less than 10 minutes"},
		{"zero", LifetimePolicy{}, seconds(0), 0, false, "may not specify a duration less than 10 minutes"},
		{"negative", LifetimePolicy{}, seconds(-1 << 63), 0, false, "may not specify a duration less than 10 minutes"},
		{"most", LifetimePolicy{}, seconds(1 << 32), MaxLifetime, false, ""},
		{"too long", LifetimePolicy{}, seconds(1<<32 + 1), 0, false, "may not specify a duration larger than 2^32 seconds"},
		{"largest integer", LifetimePolicy{}, seconds(1<<63 - 1), 0, false, "may not specify a duration larger than 2^32 seconds"},
		{"at the cap", LifetimePolicy{Max: 2 * time.Hour}, seconds(7200), 2 * time.Hour, false, ""},
		{"over the cap", LifetimePolicy{Max: 2 * time.Hour}, seconds(7201), 2 * time.Hour, true, ""},
		{"default over the cap", LifetimePolicy{Max: 20 * time.Minute}, nil, 20 * time.Minute, true, ""},
		{"short in a test", LifetimePolicy{Min: time.Second}, seconds(2), 2 * time.Second, false, ""},
		{"too short in a test", LifetimePolicy{Min: 5 * time.Second}, seconds(2), 0, false, "may not specify a duration less than 5s"},
	} {
		got, capped, err := tt.policy.Lifetime(tt.requested)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != tt.want || capped != tt.capped || text != tt.err {
			t.Errorf("%s: Lifetime = %v, %v, %q; want %v, %v, %q", tt.name, got, capped, text, tt.want, tt.capped, tt.err)
		}
	}
}
