package keyring_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"lanyard.dev/internal/apiserver/keyring"
	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
)

var policy = rotation.Policy{Period: time.Hour, Lead: time.Minute, Linger: time.Minute}

// noTokens is a ledger without tokens.
type noTokens struct{}

func (noTokens) LiveTokens(string) (int, error) { return 0, nil }

// start runs a replica on the storage until the test ends.
func start(t *testing.T, base *storagetest.Storage, soleWriter bool) *keyring.Keyring {
	t.Helper()
	k, m := keyring.NewOn(t, base, mirror.Config{SoleWriter: soleWriter}, policy, signingkey.None())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if set := k.Current(); set.Signer("") != nil {
		t.Error("a keyring that has read nothing has a key")
	}
	if err := m.WaitSynced(storagetest.In(t, "")); err != nil {
		t.Fatal(err)
	}
	return k
}

// advance makes the changes that are due at a time.
func advance(t *testing.T, k *keyring.Keyring, now time.Time) rotation.Ring {
	t.Helper()
	ring, err := k.Change(t.Context(), func(r rotation.Ring) (rotation.Ring, error) {
		next, _, err := policy.Advance(r, now, noTokens{})
		return next, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return done(), nil })
	if err != nil {
		t.Fatalf("no %s", what)
	}
}

// TestChangesAreInForceAtOnce changes the keys, and restarts.
func TestChangesAreInForceAtOnce(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	k := start(t, base, true)
	now := time.Now()
	for range 20 {
		now = now.Add(policy.Period)
		want := advance(t, k, now).Accepted()
		got, revision := k.Ring()
		if len(want) == 0 || len(got.Accepted()) != len(want) || len(k.Current().Keys()) != len(want) || k.Current().Signer("") == nil {
			t.Fatalf("%d keys were stored, %d are in force", len(want), len(got.Accepted()))
		}
		advance(t, k, now)
		if _, again := k.Ring(); again != revision {
			t.Error("a change of nothing was written")
		}
	}
	signer := k.Current().Signer("").ID()
	if again := start(t, base, true); again.Current().Signer("") == nil || again.Current().Signer("").ID() != signer {
		t.Errorf("after a restart another key signs")
	}
	refusal := errors.New("not allowed")
	_, err := k.Change(t.Context(), func(rotation.Ring) (rotation.Ring, error) { return rotation.Ring{}, refusal })
	if err != refusal || k.Current().Signer("").ID() != signer {
		t.Errorf("a refused change: %v", err)
	}
}

// TestReplicasAgree lets several replicas start, rotate and revoke at the same time. All end with the same keys, and each key is
// replaced once.
func TestReplicasAgree(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	var replicas []*keyring.Keyring
	for range 3 {
		replicas = append(replicas, start(t, base, false))
	}
	now := time.Now()
	together := func(do func(*keyring.Keyring)) {
		var running sync.WaitGroup
		for _, k := range replicas {
			running.Go(func() { do(k) })
		}
		running.Wait()
		_, revision := replicas[0].Ring()
		for _, k := range replicas {
			await(t, "agreement", func() bool { _, own := k.Ring(); revision = max(revision, own); return own == revision })
		}
		ring, _ := replicas[0].Ring()
		signing := 0
		for _, key := range ring.Keys() {
			if key.State() == rotation.Signing {
				signing++
			}
		}
		if signing != 1 {
			t.Fatalf("%d keys sign", signing)
		}
	}
	together(func(k *keyring.Keyring) { advance(t, k, now) })
	for range 5 {
		before, _ := replicas[0].Ring()
		for range 2 {
			now = now.Add(policy.Period)
			together(func(k *keyring.Keyring) { advance(t, k, now) })
		}
		after, _ := replicas[1].Ring()
		if n := len(after.Keys()) - len(before.Keys()); n != 1 {
			t.Errorf("%d new keys in a period, want 1", n)
		}
	}
	signer := replicas[0].Current().Signer("").ID()
	refused := 0
	var mu sync.Mutex
	together(func(k *keyring.Keyring) {
		_, err := k.Change(t.Context(), func(r rotation.Ring) (rotation.Ring, error) {
			next, _, err := policy.Revoke(r, signer, now)
			return next, err
		})
		if errors.Is(err, rotation.ErrNotFound) {
			mu.Lock()
			defer mu.Unlock()
			refused++
		} else if err != nil {
			t.Error(err)
		}
		if len(k.Current().Find(signer)) != 0 {
			t.Error("a replica that revoked a key accepts it")
		}
	})
	if refused != 2 {
		t.Errorf("%d of 3 revocations found the key revoked, want 2", refused)
	}
}

// TestRefresh reads a key of another replica before the watch delivers it.
func TestRefresh(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	one, other := start(t, base, false), start(t, base, false)
	if err := other.Refresh(t.Context()); err != nil {
		t.Fatalf("nothing is stored: %v", err)
	}
	now := time.Now()
	for range 20 {
		now = now.Add(policy.Period)
		advance(t, one, now)
		if err := other.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := one.Current().Signer("").ID(); other.Current().Signer("").ID() != want {
			t.Fatal("a replica that refreshed does not know the key")
		}
	}
	if err := other.Fresh(); err != nil {
		t.Error(err)
	}
}

// TestNewer waits for the next keys.
func TestNewer(t *testing.T) {
	t.Parallel()
	k := start(t, storagetest.Start(t), true)
	if err := k.Settle(t.Context()); err != nil {
		t.Errorf("settle: %v", err)
	}
	_, before := k.Ring()
	advance(t, k, time.Now())
	if err := k.Newer(t.Context(), before); err != nil {
		t.Errorf("keys that are there: %v", err)
	}
	_, now := k.Ring()
	found := make(chan error, 1)
	go func() { found <- k.Newer(t.Context(), now) }()
	advance(t, k, time.Now().Add(policy.Period))
	if err := <-found; err != nil {
		t.Error(err)
	}
	_, now = k.Ring()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Newer(ended, now); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// changing is a KeySource whose keys change.
type changing struct{ atomic.Pointer[signingkey.Set] }

func (c *changing) Current() *signingkey.Set { return c.Load() }

// TestFurtherKeys accepts keys of another source, and follows them.
func TestFurtherKeys(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	further := &changing{}
	further.Store(signingkey.None())
	k, _ := keyring.NewOn(t, base, mirror.Config{SoleWriter: true}, policy, further)
	advance(t, k, time.Now())
	if n := len(k.Current().Keys()); n != 1 {
		t.Errorf("%d keys, want 1", n)
	}
	signer := k.Current().Signer("")
	other, err := signingkey.Generate("")
	if err != nil {
		t.Fatal(err)
	}
	for _, accepted := range []*signingkey.Set{must(signingkey.NewSet(nil, other.Public())), signingkey.None(), must(signingkey.NewSet(other))} {
		further.Store(accepted)
		set := k.Current()
		if len(set.Keys()) != 1+len(accepted.Keys()) || set.Signer("") != signer {
			t.Errorf("%d keys, signer %v", len(set.Keys()), set.Signer(""))
		}
		if k.Current() != set {
			t.Error("the set is made again for each use")
		}
	}
	advance(t, k, time.Now().Add(policy.Period))
	if n := len(k.Current().Keys()); n != 3 {
		t.Errorf("%d keys after another was published, want 3", n)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
