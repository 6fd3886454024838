// Package serviceaccount serves service accounts: what is refused, their table, their storage.
//
// It does not know how a token is signed or verified, nor which accounts a namespace starts with.
package serviceaccount
