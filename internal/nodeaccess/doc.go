// Package nodeaccess decides what a node may do: what Kubernetes' Node authorizer lets it, which depends on the pods it
// runs.
//
// A graph, kept up to date from the changes of pods, says which secrets, config maps and service accounts belong to
// which node. A decision looks up one edge of it, so it costs the same at ten pods and at ten thousand, and lists
// nothing. What a request carries is not known when it is authorized; what a node may write is for admission to check.
// The certificates of a node that was evicted are refused: Evictions knows which nodes were, and when. The package
// knows no HTTP and no storage.
package nodeaccess
