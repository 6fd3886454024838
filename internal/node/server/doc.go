// Package server serves the node's HTTPS endpoint, at the paths of a kubelet: the logs of containers, exec, attach and
// port-forward, the agent's health and its metrics.
//
// A client authenticates with a certificate of the client CA, or with a bearer token that the authority reviews. For each
// request, the server asks the authority whether the user may do this on this node, and denies the request if there is no
// answer. It caches no answer. The server reaches containers through the streaming server of the container runtime, on
// loopback only.
//
// The package runs no container and reads no log: the interfaces Pods and Runtime do.
package server
