package apiserver

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
	"lanyard.dev/internal/token"
)

// relyingParty verifies tokens with the published documents alone. It reads the key set again only when the max-age of the last
// answer is over, even if it meets an unknown key.
type relyingParty struct {
	url   string
	clock *clocktesting.FakeClock
	keys  *signingkey.Set
	until time.Time
}

func (v *relyingParty) verify(t *testing.T, text string) error {
	t.Helper()
	if v.keys == nil || !v.clock.Now().Before(v.until) {
		response, body := fetch(t, http.MethodGet, v.url+jwksPath)
		_, seconds, _ := strings.Cut(response.Header.Get("Cache-Control"), "max-age=")
		age, err := strconv.Atoi(seconds)
		if err != nil {
			t.Fatal(err)
		}
		if v.keys, err = signingkey.ParseJWKS(body); err != nil {
			t.Fatal(err)
		}
		v.until = v.clock.Now().Add(time.Duration(age) * time.Second)
	}
	_, err := token.VerifyOffline(text, v.keys, token.Expected{Issuer: issuerURL, Clock: v.clock})
	return err
}

// issuedToken is a token that a test remembers until it expires.
type issuedToken struct {
	text, kid string
	expires   time.Time
}

// liveTokens counts the tokens that a test remembers.
type liveTokens []issuedToken

func (l liveTokens) LiveTokens(kid string) (int, error) {
	n := 0
	for _, issued := range l {
		if issued.kid == kid {
			n++
		}
	}
	return n, nil
}

// TestAThousandRotations replaces the key a thousand times in fast time, with the times of a server. Its verifier and a relying party
// that caches the key set as long as the server permits accept every token from its issue to its expiry.
func TestAThousandRotations(t *testing.T) {
	t.Parallel()
	now := clocktesting.NewFakeClock(time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC))
	policy := (&ServiceAccounts{Keys: Keys{RotationPeriod: minRotationPeriod}}).rotation()
	var ring rotation.Ring
	var live liveTokens
	keys := new(changingKeys)
	rotations := 0
	advance := func() {
		t.Helper()
		next, made, err := policy.Advance(ring, now.Now(), live)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range made {
			if change.State == rotation.Signing {
				rotations++
			}
		}
		set, err := policy.Set(next)
		if err != nil {
			t.Fatal(err)
		}
		ring = next
		keys.set.Store(set)
	}
	advance()
	issuer, err := token.NewIssuer(issuerURL, token.NewKeySigner(keys), now)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := token.NewVerifier(token.VerifierConfig{Issuers: []string{issuerURL}, Keys: keys, Anchors: existing{}, Ledger: existing{}, Clock: now})
	if err != nil {
		t.Fatal(err)
	}
	party := &relyingParty{url: servePublisher(t, keys).URL, clock: now}
	for step := 0; rotations <= 1000; step++ {
		lifetime := time.Duration(1+step%9) * time.Hour
		text, claims, err := issuer.Issue(t.Context(), token.Request{
			Namespace: "ns", ServiceAccount: token.Ref{Name: "robot", UID: "1"}, Audiences: []string{issuerURL}, Lifetime: lifetime,
		})
		if err != nil {
			t.Fatal(err)
		}
		live = append(live, issuedToken{text, claims.KeyID, claims.ExpiresAt()})
		for _, issued := range []issuedToken{live[0], live[step%len(live)], live[len(live)-1]} {
			if _, err := verifier.Verify(t.Context(), issued.text, []string{issuerURL}); err != nil {
				t.Fatalf("after %d rotations the server refuses a token: %v", rotations, err)
			}
			if err := party.verify(t, issued.text); err != nil {
				t.Fatalf("after %d rotations the relying party refuses a token: %v", rotations, err)
			}
		}
		now.Step(29 * time.Minute)
		live = slices.DeleteFunc(live, func(i issuedToken) bool { return !now.Now().Before(i.expires) })
		advance()
	}
	if n := len(ring.Accepted()); n > 8 {
		t.Errorf("%d keys are accepted: keys do not retire", n)
	}
}
