// Package members keeps the connections of storage on etcd members that answer.
//
// A storage client has a connection to each member and takes them in turn, also the one to a member that is hung or cut
// off from its peers: the connection is open, and only what is asked there waits. So each member is probed, and while it
// does not answer and another does, its connections are closed and new ones wait. The client then resends its reads and
// reopens its watches through the others. A write that was under way fails, as it may or may not have been carried out.
//
// The package knows nothing of what is stored.
package members
