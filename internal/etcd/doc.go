// Package etcd runs one etcd member inside this process and hands out the
// unix socket it listens on.
//
// The member is alone in its cluster: it has no peers, no TCP port, no TLS
// and no passwords. What keeps others away is the file system: the socket is
// 0600 inside a directory that only its owner may enter.
//
// The package knows nothing of Kubernetes, of what the keys mean, or of who
// may read them. Old revisions are compacted by the API server's storage
// layer, not here.
package etcd
