// Package nodelife says of nodes whether they are alive, and keeps pods off those that are not.
//
// An agent renews its node's Lease. One that is not renewed for 40 seconds makes the node's conditions Unknown, and the
// pods on it not ready; nothing is deleted, since the machine may well go on with its work out of sight. The taints that
// Kubernetes derives from a node's state are kept true. A node that never had a lease is nobody's to watch: someone made
// it by hand.
//
// Any number of replicas may run it. When a lease was renewed each takes from its own clock, so that no clocks are
// compared; before a node is given up its lease is read from storage, and the node is written as it was looked at or not
// at all. Whoever wrote tells; all other writes are the same from every replica.
//
// The package does not know what becomes of pods: it evicts none.
package nodelife
