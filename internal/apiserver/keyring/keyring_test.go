package keyring_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"lanyard.dev/internal/apiserver/keyring"
	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/signingkey/rotation"
)

var policy = rotation.Policy{Period: time.Hour, Lead: time.Minute, Linger: time.Minute}

// noTokens is a ledger without tokens.
type noTokens struct{}

func (noTokens) LiveTokens(string) (int, error) { return 0, nil }

// start runs a replica on the storage until the test ends.
func start(t *testing.T, base *storagetest.Storage, soleWriter bool) *keyring.Keyring {
	t.Helper()
	m := mirror.New(mirror.Config{Base: base, SoleWriter: soleWriter}, keyring.Resource)
	k, err := keyring.New(m, policy)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; k.Close() })
	if set := k.Current(); set.Signer() != nil {
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
		if len(want) == 0 || len(got.Accepted()) != len(want) || len(k.Current().Keys()) != len(want) || k.Current().Signer() == nil {
			t.Fatalf("%d keys were stored, %d are in force", len(want), len(got.Accepted()))
		}
		advance(t, k, now)
		if _, again := k.Ring(); again != revision {
			t.Error("a change of nothing was written")
		}
	}
	signer := k.Current().Signer().ID()
	if again := start(t, base, true); again.Current().Signer() == nil || again.Current().Signer().ID() != signer {
		t.Errorf("after a restart another key signs")
	}
	refusal := errors.New("not allowed")
	_, err := k.Change(t.Context(), func(rotation.Ring) (rotation.Ring, error) { return rotation.Ring{}, refusal })
	if err != refusal || k.Current().Signer().ID() != signer {
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
	signer := replicas[0].Current().Signer().ID()
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
		if want := one.Current().Signer().ID(); other.Current().Signer().ID() != want {
			t.Fatal("a replica that refreshed does not know the key")
		}
	}
	if err := other.Fresh(); err != nil {
		t.Error(err)
	}
}
