// Package anchor remembers the objects that bound the lives of tokens: service accounts, pods, secrets and nodes.
//
// It answers the token verifier from memory, told by feeds that are never behind a write this process acknowledged.
// It knows no tokens and no HTTP.
package anchor
