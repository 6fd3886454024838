// Package scheduler binds pods to nodes: each pod that names none to a ready node that it may run on, the one with the
// fewest pods.
//
// A pod may run on a node that is ready, that its node selector and its required node affinity match, whose taints it
// tolerates, and where no other pod has its host ports. That is all. It does not know what pods ask of CPU and memory,
// nor priorities, affinity between pods, spreading, or volumes. A pod that fits nowhere waits, and its condition says
// why; it is tried again when a node or the pod changes, not before.
//
// Any number of replicas may run it. A binding takes place once, so the others' attempts at it fail and are forgotten.
// Only host ports need more: two replicas could give them to two pods at once, so they take turns, by a Lease.
package scheduler
