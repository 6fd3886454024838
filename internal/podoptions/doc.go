// Package podoptions reads and writes what a request about a running pod asks for: the logs of a container, a command in
// it, a terminal, ports. It holds both forms in which that travels in a URL's query: Kubernetes' parameters, from client
// to authority, and a kubelet's, from authority to node.
//
// It knows no pod, no connection, and not who may ask for what.
package podoptions
