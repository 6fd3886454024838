// Package server serves what a node's agent shows of its pods over HTTPS, at a kubelet's paths: the logs of a container, a
// command in it, its own terminal, the ports of a pod; and whether the agent lives, and its metrics.
//
// Who connects shows a client certificate of the CA, or a bearer token, which the authority reviews. The authority is asked, for
// each request, whether that user may do this to this node; without an answer nobody may. No answer is remembered. What runs in containers is reached by the container runtime's
// streaming server, on loopback and nowhere else.
//
// The package runs nothing, reads no log and knows no runtime: Pods and Runtime do.
package server
