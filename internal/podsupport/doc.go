// Package podsupport declares which fields of a pod the agent carries out, and reports those it does not. The agent refuses
// such a pod, and the authority warns whoever creates it, both from this one declaration.
//
// The package does not know who asks, whether a field's value is valid, or which node runs the pod: a kubelet may support
// more.
package podsupport
