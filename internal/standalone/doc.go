// Package standalone runs an authority in one process, with a data directory and an embedded etcd.
//
// `lanyard up` and lanyardtest share it. It does not know the command line.
package standalone
