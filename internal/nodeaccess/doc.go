// Package nodeaccess decides what a node may do, by the rules of Kubernetes' Node authorizer: they depend on the pods that
// the node runs.
//
// Pods is the index of pods by node, which is kept up to date by the feed of pods. It knows the secrets, config maps and
// service accounts that each pod uses. A decision is one look-up in it, so it costs the same with ten pods and with ten
// thousand. The authorizer does not know the object that a request carries; admission checks what a node may write.
// Evictions knows which nodes were evicted, and when: older certificates of such a node are refused. The package knows no
// HTTP and no storage.
package nodeaccess
