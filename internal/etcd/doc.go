// Package etcd runs one etcd member in this process, which listens on a unix socket.
//
// The member is the only one of its cluster. It has no peers, no TCP port, no TLS and no passwords. The file system keeps other
// users away: the socket has mode 0600, in a directory that only its owner may enter.
//
// The package does not know Kubernetes, the meaning of the keys, or who may read them. The storage layer of the API server
// compacts old revisions.
package etcd
