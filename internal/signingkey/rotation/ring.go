package rotation

import (
	"fmt"
	"slices"
	"time"

	"lanyard.dev/internal/signingkey"
)

// State is a stage in the life of a key.
type State string

// The states, in the order in which a key passes through them. Retired and Revoked are the two ways to end.
const (
	Published State = "Published"
	Signing   State = "Signing"
	Verifying State = "Verifying"
	Retired   State = "Retired"
	Revoked   State = "Revoked"
)

// Key is the record of one key.
type Key struct {
	// ID is the kid in the header of tokens.
	ID        string
	Algorithm signingkey.Algorithm
	// Private is nil unless the state is Published or Signing.
	Private *signingkey.PrivateKey
	// Public is the zero value if the key has ended.
	Public signingkey.PublicKey
	// Created is when the key was published, or when its file was written if it was taken over.
	Created time.Time
	// Signed, Stopped and Ended are when the key began to sign, stopped to sign, and ended. Each is zero before.
	Signed, Stopped, Ended time.Time
	// Revoked is whether the key ended because it was revoked.
	Revoked bool
	// TakenOver is whether the key comes from a file. Tokens of it may exist that were never counted.
	TakenOver bool
}

// State returns the state of the key.
func (k *Key) State() State {
	switch {
	case k.Revoked:
		return Revoked
	case !k.Ended.IsZero():
		return Retired
	case !k.Stopped.IsZero():
		return Verifying
	case !k.Signed.IsZero():
		return Signing
	}
	return Published
}

// accepted reports whether tokens of the key are accepted.
func (k *Key) accepted() bool { return k.Ended.IsZero() }

// sign makes a published key the one that signs.
func (k *Key) sign(now time.Time) { k.Signed = now }

// stop ends the signing of a key.
func (k *Key) stop(now time.Time) { k.Private, k.Stopped = nil, now }

// end removes a key from the accepted ones. Its record remains, so that a file with the key is not taken over again.
func (k *Key) end(now time.Time, revoked bool) {
	k.Private, k.Public = nil, signingkey.PublicKey{}
	k.Ended, k.Revoked = now, revoked
}

// Ring is all keys of an authority, in the order of their creation. It never changes. The zero value has no key.
type Ring struct {
	keys []Key
}

// Keys returns the records of all keys, also of those that have ended, in the order of their creation.
func (r Ring) Keys() []Key { return slices.Clone(r.keys) }

// Accepted returns the records of the keys whose tokens are accepted.
func (r Ring) Accepted() []Key {
	return slices.DeleteFunc(r.Keys(), func(k Key) bool { return !k.accepted() })
}

// Find returns the record of a key.
func (r Ring) Find(id string) (Key, bool) {
	if i := r.index(id); i >= 0 {
		return r.keys[i], true
	}
	return Key{}, false
}

func (r Ring) index(id string) int {
	return slices.IndexFunc(r.keys, func(k Key) bool { return k.ID == id })
}

// Algorithm returns the algorithm of tokens whose audience needs no other: wanted if a key signs with it, so that a new algorithm
// waits until its first key has been published for long enough. Otherwise it is the first of signingkey.Algorithms that a key
// signs with, or "" if no key signs.
func (r Ring) Algorithm(wanted signingkey.Algorithm) signingkey.Algorithm {
	for _, a := range append([]signingkey.Algorithm{wanted}, signingkey.Algorithms()...) {
		if r.latest(a, Signing) >= 0 {
			return a
		}
	}
	return ""
}

// Set returns the key set that signs and verifies with the keys of r, and also verifies with those in accepted. The default signer
// has the preferred algorithm. Without any key the set is signingkey.None.
func (p Policy) Set(r Ring, accepted ...signingkey.PublicKey) (*signingkey.Set, error) {
	var signers []*signingkey.PrivateKey
	accepted = slices.Clone(accepted)
	algorithm := r.Algorithm(p.preferred(r))
	for i := range r.keys {
		switch k := &r.keys[i]; {
		case !k.accepted():
		case k.State() == Signing && k.Algorithm == algorithm:
			signers = append([]*signingkey.PrivateKey{k.Private}, signers...)
		case k.State() == Signing:
			signers = append(signers, k.Private)
		case k.TakenOver:
			accepted = append(accepted, k.Public)
		default:
			accepted = append(accepted, k.Public.OnlyLowS())
		}
	}
	if len(signers) == 0 && len(accepted) == 0 {
		return signingkey.None(), nil
	}
	return signingkey.NewSetOf(signers, accepted...)
}

// latest returns the index of the key of an algorithm and state that was created last, or -1.
func (r Ring) latest(algorithm signingkey.Algorithm, state State) int {
	for i, k := range slices.Backward(r.keys) {
		if k.Algorithm == algorithm && k.State() == state {
			return i
		}
	}
	return -1
}

// count returns the number of accepted keys.
func (r Ring) count() int {
	n := 0
	for i := range r.keys {
		if r.keys[i].accepted() {
			n++
		}
	}
	return n
}

// maxEnded is the number of ended keys whose records are kept, the latest ones.
const maxEnded = 20

// prune removes the oldest records of ended keys. Those of keys that were taken over stay: the next start may find the file of such a
// key, and must not accept its tokens again.
func (r *Ring) prune() {
	excess := len(r.keys) - r.count() - maxEnded
	r.keys = slices.DeleteFunc(r.keys, func(k Key) bool {
		if k.accepted() || k.TakenOver || excess <= 0 {
			return false
		}
		excess--
		return true
	})
}

// newKey returns the record of a new key. Its ID does not begin with a hyphen, so that a command line does not take it for a
// flag.
func newKey(algorithm signingkey.Algorithm, now time.Time) (Key, error) {
	for {
		private, err := signingkey.Generate(algorithm)
		if err != nil {
			return Key{}, fmt.Errorf("generate a signing key: %w", err)
		}
		if private.ID()[0] == '-' {
			continue
		}
		return Key{ID: private.ID(), Algorithm: private.Algorithm(), Private: private, Public: private.Public(), Created: now}, nil
	}
}
