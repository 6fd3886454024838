// Package members keeps the storage connected to etcd members that respond.
//
// An etcd client has a connection to each member and uses them in turn, including the connection to a member that hangs
// or that is cut off from the others: that connection is open, and only requests on it wait. So this package probes each
// member. While a member does not respond and another does, it closes the connections to the silent member and holds new
// ones back. The client then repeats its reads and reopens its watches with the other members. A write that was under way
// fails, because etcd may or may not have done it.
//
// The package knows nothing about what is stored.
package members
