// Package signingkey makes, loads, saves and publishes the keys that sign service account tokens.
//
// A private key signs, a public key verifies, and a Set says which key signs now and which keys are accepted. A key
// is named by its RFC 7638 thumbprint, so the same key has the same name on every replica and after every restart.
//
// The package knows JWS signatures but not tokens: not what is signed, for whom, or how long it holds. It serves
// nothing over the network. No error it returns contains key material.
package signingkey
