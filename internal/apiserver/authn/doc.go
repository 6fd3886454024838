// Package authn identifies the caller of a request. It presents the token verifier and the verification of client
// certificates as the library's authenticators.
//
// A caller is identified by a client certificate or a bearer token. A request without either is anonymous. The package
// does not decide what a caller may do.
package authn
