// Package datadir keeps the directory that `lanyard up` lives in: it creates
// it, locks it, names the files in it, makes those that a first start needs
// and finds them again on later ones. It also notes on this machine which
// instances run, so that other commands find them.
//
// It knows nothing of HTTP, etcd or the API, and never replaces a file that
// cannot be derived again: it reports it.
package datadir
