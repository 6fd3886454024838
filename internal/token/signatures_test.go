package token

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"lanyard.dev/internal/signingkey"
)

// remembering returns a fixture whose issuer and verifier share a memory of signatures. The verifier has no other cache: each
// call of the function makes a new one.
func remembering(t *testing.T, key *signingkey.PrivateKey, more ...signingkey.PublicKey) (*fixture, *Signatures, func(text string) error) {
	t.Helper()
	f, signatures := newFixture(t, key, more...), NewSignatures()
	f.issuer.signer = signatures.NewKeySigner(f.keys)
	return f, signatures, func(text string) error {
		v, err := NewVerifier(VerifierConfig{Issuers: []string{testIssuer}, Keys: f.keys, Anchors: f.objects, Ledger: f.ledger, Clock: f.clock, Signatures: signatures})
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(context.Background(), text, []string{testAudience})
		return err
	}
}

// TestSignaturesAreRemembered checks which signatures are not verified again, by tokens whose signature does not hold.
func TestSignaturesAreRemembered(t *testing.T) {
	t.Parallel()
	f, signatures, verify := remembering(t, es256Key(), rs256Key().Public())
	own := f.key.Public()
	issued := sha256.Sum256([]byte(f.issue(t, request())))
	if !signatures.has(&issued, own) || signatures.has(&issued, rs256Key().Public()) {
		t.Error("an issued token is not remembered with its key alone")
	}
	other := forge(t, f.key, headerOf(f.key), payload())
	if err := verify(other); err != nil {
		t.Fatal(err)
	}
	verified := sha256.Sum256([]byte(other))
	if !signatures.has(&verified, own) {
		t.Error("a verified token is not remembered")
	}

	bad := forge(t, mustGenerate(signingkey.ES256), headerOf(f.key), payload())
	digest := sha256.Sum256([]byte(bad))
	signatures.add(&digest, rs256Key().Public())
	if err := verify(bad); !errors.Is(err, ErrBadSignature) || signatures.has(&digest, own) {
		t.Errorf("a token that another key is known to have signed: %v", err)
	}
	signatures.add(&digest, own)
	if err := verify(bad); err != nil {
		t.Errorf("a token that its key is known to have signed: %v", err)
	}
	if err := verify(other[:len(other)-1] + nextLetter(other[len(other)-1])); err == nil {
		t.Error("a token that differs in one bit is accepted")
	}
}

// TestRememberedTokensAreChecked checks that a remembered signature replaces no other check.
func TestRememberedTokensAreChecked(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*fixture)
		want   error
	}{
		"nothing": {func(*fixture) {}, nil},
		"account": {func(f *fixture) { f.objects.remove("serviceaccount", "shop", "cart") }, ErrAccountGone},
		"expiry":  {func(f *fixture) { f.clock.SetTime(testNow.Add(time.Hour)) }, ErrExpired},
		"key": {func(f *fixture) {
			set, err := signingkey.NewSet(mustGenerate(signingkey.ES256))
			if err != nil {
				panic(err)
			}
			f.keys.rotate(set)
		}, ErrUnknownKey},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, _, verify := remembering(t, es256Key())
			text := f.issue(t, request())
			tt.change(f)
			if err := verify(text); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestSignaturesAreBounded checks how many tokens are remembered.
func TestSignaturesAreBounded(t *testing.T) {
	t.Parallel()
	s, key := NewSignatures(), es256Key().Public()
	nth := func(i int) *digest {
		d := new(digest)
		binary.BigEndian.PutUint64(d[:], uint64(i))
		return d
	}
	for i := range 2*signaturesKept + 1 {
		s.add(nth(i), key)
	}
	if s.has(nth(signaturesKept-1), key) || !s.has(nth(signaturesKept), key) || !s.has(nth(2*signaturesKept), key) {
		t.Error("not the latest tokens are remembered")
	}
	if n := len(s.current) + len(s.previous); n > 2*signaturesKept {
		t.Errorf("%d tokens are remembered", n)
	}
	var none *Signatures
	none.add(nth(0), key)
	if none.has(nth(0), key) {
		t.Error("a nil memory remembers")
	}
}
