// Package mirror delivers every change of a resource to listeners in this process. A listener can answer from memory,
// because it is never behind a write that this process has acknowledged.
//
// There is one Feed for each resource. A feed receives changes in two ways:
//
//   - From the writes of this process. The feed's layer of the storage calls the listeners after etcd has committed a
//     write and before the write returns. By the time a client reads the response to its write, every listener has the
//     change.
//   - From a watch of etcd, which delivers the writes of all processes, a moment later. When the watch ends, the feed
//     lists the resource, delivers what has changed, and opens another watch.
//
// # Order
//
// A write of this process arrives twice, and concurrent writes arrive in any order. etcd numbers all its writes with
// revisions, and an object's resource version is the revision of its last write. For each object, the feed keeps the
// revision that it delivered last, and drops every change that is not newer. So a listener receives the changes of one
// object in the order of their revisions, each at most once. It does not receive a change that arrives after a newer one.
// Changes of different objects have no order.
//
// The feed remembers that it delivered the deletion of an object until the watch has passed the revision of the
// deletion. Otherwise an older event that is still on its way would bring the object back.
//
// # Freshness
//
// If this process is the only writer of etcd, its listeners have every change. If other replicas write as well, their
// changes arrive when the watch delivers them, and the feed proves how long ago that was at most. It notes the time, asks
// etcd for its current revision, and waits until the watch has delivered everything up to that revision. From then on it
// is proved that everything written before the noted time has been delivered. That the watch is open proves nothing, since
// it may be delivering old events. Fresh returns ErrStale when the latest proof is older than MaxLag; callers then refuse
// to decide.
//
// # Where to read
//
//   - mirror.go: the feeds, and the storage that is built around them.
//   - storage.go: the layers that deliver writes and that read from the watch cache.
//   - feed.go: list, watch, and begin again after a failure.
//   - order.go: which changes are delivered.
//   - pages.go: how a list is read.
//   - append.go: feeds of objects that add up, of which nothing is kept.
//   - freshness.go: proofs of freshness.
//   - catchup.go: waiting for everything that was written before.
//   - history.go: a bound in bytes for the watch cache's history.
//
// The package knows no kinds. It keeps the metadata of objects and no objects; listeners keep what they need.
package mirror
