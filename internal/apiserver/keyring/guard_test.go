package keyring

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
	"lanyard.dev/internal/token"
)

// countingStorage counts readings. They fail with err if it is set.
type countingStorage struct {
	storage.Interface
	reads atomic.Int64
	err   error
}

func (s *countingStorage) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	s.reads.Add(1)
	if s.err != nil {
		return s.err
	}
	return s.Interface.Get(ctx, key, opts, out)
}

// byKey is a verifier and signer for which the text of a token is the ID of its key.
type byKey struct{ keys *Keyring }

func (v byKey) Verify(_ context.Context, text string, _ []string) (token.Identity, error) {
	if len(v.keys.Current().Find(text)) == 0 {
		return token.Identity{}, token.ErrUnknownKey
	}
	return token.Identity{Name: text}, nil
}

func (v byKey) Sign(context.Context, signingkey.Algorithm, []byte) (text, keyID string, err error) {
	return "", v.keys.Current().Signer("").ID(), nil
}

// behind returns two replicas with the same keys, and the storage of the second, which has not run its feed yet.
func behind(t *testing.T) (ahead, late *Keyring, reads *countingStorage) {
	t.Helper()
	base := storagetest.Start(t)
	ahead, _ = NewOn(t, base, mirror.Config{MaxLag: 24 * time.Hour}, rotation.Policy{}, signingkey.None())
	late, _ = NewOn(t, base, mirror.Config{MaxLag: 24 * time.Hour}, rotation.Policy{}, signingkey.None())
	reads = &countingStorage{Interface: late.storage}
	late.storage = reads
	_, err := ahead.Change(t.Context(), func(r rotation.Ring) (rotation.Ring, error) {
		next, _, err := ahead.Policy().Advance(r, time.Now(), nil)
		return next, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ahead, late, reads
}

// TestAnUnknownKeyIsReadFromStorage verifies tokens of a key that the replica does not know yet, and of one that nobody knows.
func TestAnUnknownKeyIsReadFromStorage(t *testing.T) {
	t.Parallel()
	ahead, late, reads := behind(t)
	verifier := late.Verifier(byKey{late})
	known := ahead.Current().Signer("").ID()
	late.soleWriter = true
	if _, err := verifier.Verify(t.Context(), known, nil); !errors.Is(err, token.ErrUnknownKey) || reads.reads.Load() != 0 {
		t.Errorf("the only writer: %v after %d readings", err, reads.reads.Load())
	}
	late.soleWriter = false
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			if id, err := verifier.Verify(t.Context(), known, nil); err != nil || id.Name != known {
				t.Errorf("got %v, %v", id, err)
			}
		})
		callers.Go(func() {
			if _, err := verifier.Verify(t.Context(), "nobody's", nil); !errors.Is(err, token.ErrUnknownKey) {
				t.Errorf("an unknown key: %v", err)
			}
		})
	}
	callers.Wait()
	if n := reads.reads.Load(); n < 1 || n > 10 {
		t.Errorf("%d readings for 100 callers", n)
	}
}

// TestReadingsHaveAPause verifies tokens of an unknown key one after another.
func TestReadingsHaveAPause(t *testing.T) {
	t.Parallel()
	_, late, reads := behind(t)
	verifier := late.Verifier(byKey{late})
	began := time.Now()
	for range 5 {
		if _, err := verifier.Verify(t.Context(), "nobody's", nil); !errors.Is(err, token.ErrUnknownKey) {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); reads.reads.Load() != 5 || took < 4*readPause {
		t.Errorf("%d readings in %v", reads.reads.Load(), took)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verifier.Verify(ended, "nobody's", nil); !errors.Is(err, token.ErrAnchorsStale) {
		t.Errorf("a caller that is gone: %v", err)
	}
}

// TestNothingIsDecidedWithStaleKeys checks a storage that does not answer, and a feed without a recent proof.
func TestNothingIsDecidedWithStaleKeys(t *testing.T) {
	t.Parallel()
	ahead, late, reads := behind(t)
	known := ahead.Current().Signer("").ID()
	verifier, signer := late.Verifier(byKey{late}), late.Signer(byKey{late})
	reads.err = errors.New("etcd is away")
	if _, err := verifier.Verify(t.Context(), known, nil); !errors.Is(err, token.ErrAnchorsStale) {
		t.Errorf("got %v", err)
	}
	reads.err = nil
	if _, err := verifier.Verify(t.Context(), known, nil); err != nil {
		t.Errorf("after etcd is back: %v", err)
	}
	if _, _, err := signer.Sign(t.Context(), "", nil); err != nil {
		t.Errorf("issue: %v", err)
	}
	late.Set(object("1000000", []byte("{}")))
	if _, err := verifier.Verify(t.Context(), known, nil); !errors.Is(err, token.ErrAnchorsStale) {
		t.Errorf("with unreadable keys: %v", err)
	}
	if _, _, err := signer.Sign(t.Context(), "", nil); outage.Of(err) == nil {
		t.Errorf("issue with unreadable keys: %v", err)
	}
}
