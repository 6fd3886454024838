// Package review answers what callers ask about identity and permissions: whether a token holds, who the caller is, whether a user may
// do something, and what the caller may do in a namespace. It stores nothing.
//
// It does not know how tokens are verified, nor how a request is decided.
package review
