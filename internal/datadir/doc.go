// Package datadir manages the data directory of `lanyard up`: it creates and locks the directory, names the files in it, and
// creates the files that a first start needs. It also records which instances run on this machine, so that other commands find
// them.
//
// The package does not know HTTP, etcd or the API. It never replaces a file whose content cannot be derived from others, but
// returns an error.
package datadir
