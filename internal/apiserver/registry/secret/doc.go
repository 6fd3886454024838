// Package secret serves secrets: their defaults, what is refused, their table, their storage.
//
// It does not know how secrets are encrypted at rest, and no fault it reports quotes a secret's value.
package secret
