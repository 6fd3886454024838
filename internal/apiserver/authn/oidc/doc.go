// Package oidc lets people sign in with tokens of other issuers, as an AuthenticationConfiguration says: it loads the
// file, keeps what it says in force, and takes it up again when it changes.
//
// Verifying and mapping a token is the library's work. The package does not know this server's own tokens, nor what
// anyone may do.
package oidc
