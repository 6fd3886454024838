// Package rotation decides which keys sign tokens, which are accepted, and when each of them changes.
//
// A key passes through four states:
//
//   - Published: relying parties can already read the key, and it signs nothing. It stays in this state for longer than anybody
//     caches the key set, so that every verifier knows the key before it meets a token of it.
//   - Signing: it signs new tokens. Each algorithm has one such key.
//   - Verifying: another key has taken over. Its tokens are accepted until they expire, and its private part is erased.
//   - Retired: no live token of it is left, so it is not accepted any more. A key that was Revoked is not accepted either,
//     whatever tokens of it were left.
//
// A Ring is all keys of an authority. It is one value, so that a change of several keys is one write: when a key takes over, the
// key before it stops with the same write. A Policy computes the next Ring from a Ring, the time and the number of live tokens
// of each key. It changes nothing by itself: any number of replicas may compute, and the one whose write comes first wins.
//
// The times are those of the wall clock, since keys outlive processes. MaxSkew is how far the clocks of replicas may differ.
//
// The package does not know where a Ring is stored, nor who counts tokens. Its errors contain no key material.
package rotation
