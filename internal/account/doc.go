// Package account reads and writes the names of service accounts, in every spelling that people use.
//
// It knows neither accounts nor tokens: a name that it reads may be that of no account.
package account
