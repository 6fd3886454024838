package token

import (
	"errors"
	"testing"

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
		if err := f.verifier.CheckStanding(t.Context(), kid, claims); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}
