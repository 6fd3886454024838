// Package podsession serves the subresources of pods that are sessions with the agent of the pod's node: log, exec, attach and portforward.
//
// It finds the pod and the container, checks that the caller may open the session, and passes the bytes on. It does not know what a
// valid pod is, nor how the connection to a node is secured.
package podsession
