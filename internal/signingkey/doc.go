// Package signingkey makes, loads and saves the keys that sign service account tokens, and encodes the key set that verifies
// them.
//
// A private key signs and a public key verifies. A Set has the keys that sign and the keys that are accepted. The ID of a
// key is its RFC 7638 thumbprint, so the same key has the same ID on every replica and after every restart.
//
// The package knows JWS signatures but not tokens: not what is signed, for whom, or how long it is valid. It serves
// nothing over the network. Its errors contain no key material.
package signingkey
