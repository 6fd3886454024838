// Package oidc authenticates users with tokens of other issuers, as an AuthenticationConfiguration file defines them. It loads
// the file, and loads it again when it changes.
//
// The library verifies the tokens and maps their claims to users. This package does not know the tokens of this server, and
// does not decide what a user may do.
package oidc
