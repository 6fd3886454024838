// Package authn tells who makes a request: it presents the token verifier and client certificates as the library's
// authenticators.
//
// Requests are identified by client certificate or bearer token; one that brings neither is anonymous. It decides
// nothing about what anyone may do.
package authn
