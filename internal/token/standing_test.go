package token

import (
	"errors"
	"testing"
	"time"

	"lanyard.dev/internal/signingkey"
)

// TestCheckStanding changes what a token depends on. The token is not needed for the answer.
func TestCheckStanding(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*fixture)
		want   error
	}{
		{"nothing", func(*fixture) {}, nil},
		{"the account is gone", func(f *fixture) { f.objects.remove("serviceaccount", "shop", "cart") }, ErrAccountGone},
		{"the pod is another one", func(f *fixture) { f.objects.set("pod", "shop", "cart-0", Anchor{UID: "pod-2"}) }, ErrPodGone},
		{"the node is gone", func(f *fixture) { f.objects.remove("node", "", "n1") }, ErrNodeGone},
		{"memory may be stale", func(f *fixture) { f.objects.stale = errors.New("behind") }, ErrAnchorsStale},
		{"the key is not accepted", func(f *fixture) {
			set, err := signingkey.NewSet(mustGenerate(signingkey.ES256))
			if err != nil {
				t.Fatal(err)
			}
			f.keys.rotate(set)
		}, ErrUnknownKey},
	} {
		f := newFixture(t, es256Key())
		kid := f.key.ID()
		test.change(f)
		claims := &Kubernetes{
			Namespace: "shop", ServiceAccount: Ref{"cart", "sa-1"}, Pod: &Ref{"cart-0", "pod-1"}, Node: &Ref{"n1", "node-1"},
		}
		if err := f.verifier.CheckStanding(t.Context(), kid, testNow, claims); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

// TestCheckStandingOfRecentTokens checks that a refusal of a recent token is confirmed in storage, since another process may have made
// its objects a moment ago. Storage is not read for older tokens.
func TestCheckStandingOfRecentTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t, es256Key())
	stored := f.objects
	f.verifier.anchors, f.verifier.stored = &objects{items: map[[3]string]Anchor{}}, stored
	claims := &Kubernetes{Namespace: "shop", ServiceAccount: Ref{"cart", "sa-1"}}
	if err := f.verifier.CheckStanding(t.Context(), f.key.ID(), testNow.Add(-time.Minute), claims); err != nil {
		t.Errorf("a recent token: %v", err)
	}
	asked := stored.asked
	if err := f.verifier.CheckStanding(t.Context(), f.key.ID(), testNow.Add(-time.Minute-time.Second), claims); !errors.Is(err, ErrAccountGone) || stored.asked != asked {
		t.Errorf("an old token: %v, storage was read %d times", err, stored.asked-asked)
	}
	stored.remove("serviceaccount", "shop", "cart")
	if err := f.verifier.CheckStanding(t.Context(), f.key.ID(), testNow, claims); !errors.Is(err, ErrAccountGone) {
		t.Errorf("an account that is gone from storage: %v", err)
	}
}
