package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

// Verifier verifies tokens. *token.Verifier implements it.
type Verifier interface {
	Verify(ctx context.Context, text string, audiences []string) (token.Identity, error)
}

// Verifier returns a verifier for v, which reads its keys from k. It decides nothing while the keys are stale. If other processes
// change the keys, it reads the keys from the storage before it refuses a token for its key, because another replica may have
// added the key a moment ago.
func (k *Keyring) Verifier(v Verifier) Verifier {
	return &guardedVerifier{Verifier: v, keys: k, reading: make(chan struct{}, 1)}
}

type guardedVerifier struct {
	Verifier
	keys *Keyring

	reading chan struct{} // has an element while a caller reads the storage
	began   time.Time     // when the latest reading began
	err     error         // with which it ended
}

// Verify implements Verifier.
func (v *guardedVerifier) Verify(ctx context.Context, text string, audiences []string) (token.Identity, error) {
	if err := v.keys.Fresh(); err != nil {
		return token.Identity{}, fmt.Errorf("%w: %w", token.ErrAnchorsStale, err)
	}
	id, err := v.Verifier.Verify(ctx, text, audiences)
	if v.keys.soleWriter || !errors.Is(err, token.ErrUnknownKey) {
		return id, err
	}
	if err := v.read(ctx); err != nil {
		return token.Identity{}, fmt.Errorf("%w: %w", token.ErrAnchorsStale, err)
	}
	return v.Verifier.Verify(ctx, text, audiences)
}

// readPause is the least time between the beginnings of two readings, so that tokens of unknown keys cost etcd little.
const readPause = 20 * time.Millisecond

// read returns once the keys have been read from the storage, by a reading that began after the call.
func (v *guardedVerifier) read(ctx context.Context) error {
	called := time.Now()
	select {
	case v.reading <- struct{}{}:
		defer func() { <-v.reading }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if v.began.After(called) {
		return v.err // another caller read while this one waited
	}
	pause := time.NewTimer(time.Until(v.began.Add(readPause)))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	v.began = time.Now()
	v.err = v.keys.Refresh(context.WithoutCancel(ctx)) // it is the result of the callers that wait, too
	return v.err
}

// Signer returns a signer for s, which reads its keys from k. It signs nothing while the keys are stale, since the key that signs may
// have been replaced or revoked.
func (k *Keyring) Signer(s token.Signer) token.Signer { return guardedSigner{s, k} }

type guardedSigner struct {
	token.Signer
	keys *Keyring
}

// Sign implements token.Signer.
func (s guardedSigner) Sign(ctx context.Context, alg signingkey.Algorithm, payload []byte) (text, keyID string, err error) {
	if err := s.keys.Fresh(); err != nil {
		return "", "", outage.New(err)
	}
	return s.Signer.Sign(ctx, alg, payload)
}
