// Package podsession serves the subresources of pods that open a session with the agent of the pod's node: log, exec,
// attach and portforward.
//
// It finds the pod and the container, checks that the caller may open the session, and forwards the bytes. It does not know
// what makes a pod valid, nor how the connection to a node is secured.
package podsession
