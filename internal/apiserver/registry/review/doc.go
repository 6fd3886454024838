// Package review serves reviews of identities and permissions: whether a token is valid, who the caller is, whether a user
// may do something, and what the caller may do in a namespace. It stores nothing.
//
// It does not know how tokens are verified, nor how a request is authorized.
package review
