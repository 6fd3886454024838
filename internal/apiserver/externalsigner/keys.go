package externalsigner

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	externaljwtv1 "k8s.io/externaljwt/apis/v1"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

const (
	// maxHint is the longest time for which keys are kept without a question, in seconds, whatever the signer asks for.
	maxHint = 3600
	// retryPause is the time between attempts to fetch the keys after one has failed, in seconds.
	retryPause = 2
	// fetchPause is the least time between the beginnings of two fetches, so that tokens of unknown keys cost the signer little.
	fetchPause = 200 * time.Millisecond

	// maxKeyID is the protocol's limit for the id of a key, in bytes.
	maxKeyID = 1024
	// maxPublicKey is the limit for an encoded public key, in bytes. One of RSA with 8192 bits has 1062.
	maxPublicKey = 4 << 10
)

// keySet is the keys that were fetched last.
type keySet struct {
	set  *signingkey.Set
	data time.Time // when the signer read the keys from their source
	next time.Time // when the keys are to be fetched again, on the monotonic clock
}

// Current implements signingkey.KeySource. The set has no key that signs.
func (s *Signer) Current() *signingkey.Set { return s.current.Load().set }

// MaxAge is how long clients may cache the keys: until they are fetched again.
func (s *Signer) MaxAge() time.Duration { return max(0, time.Until(s.current.Load().next)) }

// Run fetches the keys again as often as the signer asks for, and when the connection has ended, until ctx ends. Then it closes
// the connection.
func (s *Signer) Run(ctx context.Context) {
	defer s.Close()
	go s.watchConnection(ctx)
	for {
		pause := time.Until(s.current.Load().next)
		if s.Healthy() != nil {
			pause = retryPause * s.config.second
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.lost:
			timer.Stop()
		}
		_ = s.refresh(ctx) // it logs the error
	}
}

// refresh returns once the keys have been fetched, by a call that began after refresh was called.
func (s *Signer) refresh(ctx context.Context) error {
	called := time.Now()
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.began.After(called) {
		return s.err // another caller fetched the keys while this one waited
	}
	pause := time.NewTimer(time.Until(s.began.Add(fetchPause)))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// The result is also that of the callers that wait, so it does not depend on this caller's patience.
	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.CallTimeout)
	defer cancel()
	s.began = time.Now()
	s.err = s.fetch(detached)
	return s.err
}

// fetch puts the signer's keys into force. After an error those from before stay.
func (s *Signer) fetch(ctx context.Context, options ...grpc.CallOption) error {
	began := time.Now()
	answer, err := s.client.FetchKeys(ctx, &externaljwtv1.FetchKeysRequest{}, append(options, grpc.MaxCallRecvMsgSize(maxKeysAnswer))...)
	s.config.Metrics.Called("FetchKeys", code(err), time.Since(began))
	if err != nil {
		s.config.Metrics.Fetched(code(err), time.Time{})
		return s.noteFailure(fmt.Errorf("fetch its keys: %w", describe(err)))
	}
	next, err := keysOf(answer, began, s.config.second)
	if err != nil {
		s.config.Metrics.Fetched(metrics.Refused, time.Time{})
		return s.noteFailure(fmt.Errorf("fetch its keys: %w: %w", ErrAnswer, err))
	}
	if before := s.current.Load(); before != nil && same(before.set, next.set) {
		next.set = before.set // so that nothing is encoded again
	} else if before != nil {
		klog.InfoS("The keys of the external signer have changed", "keys", len(next.set.Keys()))
	}
	s.current.Store(next)
	if s.failing.Swap(nil) != nil {
		klog.InfoS("The external signer answers again", "socket", s.config.Socket)
	}
	s.config.Metrics.Fetched(code(nil), next.data)
	return nil
}

// noteFailure notes and returns the error of a fetch. A failure that continues is logged once.
func (s *Signer) noteFailure(err error) error {
	if s.current.Load() == nil {
		return err // Connect returns it
	}
	if before := s.failing.Swap(&err); before == nil || (*before).Error() != err.Error() {
		klog.ErrorS(err, "The keys of the external signer cannot be fetched, and those from before stay in force", "socket", s.config.Socket)
	}
	return err
}

// keysOf checks an answer that was requested at began. second is the unit of its refresh hint.
func keysOf(answer *externaljwtv1.FetchKeysResponse, began time.Time, second time.Duration) (*keySet, error) {
	hint := answer.GetRefreshHintSeconds()
	if hint <= 0 {
		return nil, fmt.Errorf("its refresh hint is %d seconds, which is not positive", hint)
	}
	if answer.GetDataTimestamp().CheckValid() != nil {
		return nil, errors.New("it has no valid time of its data")
	}
	if n := len(answer.GetKeys()); n == 0 || n > signingkey.MaxKeys {
		return nil, fmt.Errorf("it has %d keys, want 1 to %d", n, signingkey.MaxKeys)
	}
	var keys []signingkey.PublicKey
	for i, one := range answer.GetKeys() {
		key, err := publicKey(one)
		if err != nil {
			return nil, fmt.Errorf("key %d of its answer: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	set, err := signingkey.NewSet(nil, keys...)
	if err != nil {
		return nil, err
	}
	return &keySet{
		set: set, data: answer.GetDataTimestamp().AsTime(),
		next: began.Add(time.Duration(min(hint, maxHint)) * second),
	}, nil
}

func publicKey(k *externaljwtv1.Key) (signingkey.PublicKey, error) {
	if n := len(k.GetKeyId()); n == 0 || n > maxKeyID {
		return signingkey.PublicKey{}, fmt.Errorf("its id has %d bytes, want 1 to %d", n, maxKeyID)
	}
	if n := len(k.GetKey()); n == 0 || n > maxPublicKey {
		return signingkey.PublicKey{}, fmt.Errorf("it has %d bytes, want 1 to %d", n, maxPublicKey)
	}
	parsed, err := x509.ParsePKIXPublicKey(k.GetKey())
	if err != nil {
		return signingkey.PublicKey{}, errors.New("it is not a PKIX public key")
	}
	key, err := signingkey.NewPublicKey(parsed)
	if err != nil {
		return signingkey.PublicKey{}, err
	}
	key = key.Named(k.GetKeyId())
	if k.GetExcludeFromOidcDiscovery() {
		key = key.Unpublished()
	}
	return key, nil
}

// same reports whether two sets have the same keys, in the same order and under the same names.
func same(a, b *signingkey.Set) bool {
	equal := func(x, y signingkey.PublicKey) bool {
		return x.ID() == y.ID() && x.Published() == y.Published() && x.Thumbprint() == y.Thumbprint()
	}
	return slices.EqualFunc(a.Keys(), b.Keys(), equal)
}

// Verifier verifies tokens. *token.Verifier implements it.
type Verifier interface {
	Verify(ctx context.Context, text string, audiences []string) (token.Identity, error)
}

// Verifier returns a verifier for v, which reads its keys from s. Before it refuses a token for its key, it fetches the keys, because
// the signer may have begun to use a new one. If the signer does not answer then, the token is neither accepted nor refused.
func (s *Signer) Verifier(v Verifier) Verifier { return verifier{v, s} }

type verifier struct {
	Verifier
	signer *Signer
}

// Verify implements Verifier.
func (v verifier) Verify(ctx context.Context, text string, audiences []string) (token.Identity, error) {
	id, err := v.Verifier.Verify(ctx, text, audiences)
	if !errors.Is(err, token.ErrUnknownKey) {
		return id, err
	}
	if err := v.signer.refresh(ctx); err != nil {
		return token.Identity{}, fmt.Errorf("%w: %w", token.ErrAnchorsStale, err)
	}
	return v.Verifier.Verify(ctx, text, audiences)
}
