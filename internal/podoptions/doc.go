// Package podoptions reads and writes the options of a request about a running pod: for the log of a container, for a command in
// it, for a terminal, and for ports. It knows both forms that the options have in the query of a URL: Kubernetes' parameters,
// from client to authority, and a kubelet's parameters, from authority to node.
//
// The package does not know whether the pod exists, how the connection is made, or who may make the request.
package podoptions
