// Package standalone runs everything one machine needs in one process: a data directory, an embedded etcd and the
// authority on top of them.
//
// It is what `lanyard up` and lanyardtest share; it knows no command line.
package standalone
