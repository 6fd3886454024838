package token

import (
	"crypto/sha256"
	"sync"

	"lanyard.dev/internal/signingkey"
)

// Signatures remembers tokens whose signature holds: those that this process has signed, and those whose signature it has
// verified. A Verifier does not verify their signatures again, which takes more time than all its other checks. It is a fact that
// does not change, like those in the cache of a Verifier, but takes about 50 bytes instead of one or two kilobytes, so that many
// more tokens have a place. Everything else about such a token is checked as usual. It is safe for concurrent use. A nil
// Signatures remembers nothing.
type Signatures struct {
	mu                sync.RWMutex
	current, previous map[signatureID]struct{}
}

// signatureID is a digest of a token and of the key that signed it. It is no credential.
type signatureID [sha256.Size]byte

// signaturesKept is how many tokens are remembered at least. When that many new ones have been added, the older ones, at most as
// many, are forgotten.
const signaturesKept = 1 << 16

// NewSignatures returns an empty memory.
func NewSignatures() *Signatures { return &Signatures{current: map[signatureID]struct{}{}} }

// NewKeySigner returns the Signer of the keys in a source, whose tokens s remembers.
func (s *Signatures) NewKeySigner(keys signingkey.KeySource) Signer { return keySigner{keys, s} }

func newSignatureID(token *digest, key signingkey.PublicKey) signatureID {
	return sha256.Sum256(append(token[:len(token):len(token)], key.Thumbprint()...))
}

// add remembers that the key signed the token with this digest.
func (s *Signatures) add(token *digest, key signingkey.PublicKey) {
	if s == nil {
		return
	}
	id := newSignatureID(token, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.current) >= signaturesKept {
		s.current, s.previous = map[signatureID]struct{}{}, s.current
	}
	s.current[id] = struct{}{}
}

// has reports whether the key is known to have signed the token with this digest.
func (s *Signatures) has(token *digest, key signingkey.PublicKey) bool {
	if s == nil {
		return false
	}
	id := newSignatureID(token, key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, now := s.current[id]
	_, before := s.previous[id]
	return now || before
}
