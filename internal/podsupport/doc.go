// Package podsupport declares what a pod on a Lanyard node may have: one table of the fields of a pod and of the package that
// implements each field. The agent refuses a pod with any other field, and the authority warns the client that creates such a
// pod. Both follow from the table, and so does docs/pod-fields.md.
//
// The package does not know whether the value of a field is valid, who creates a pod, or which node runs it: a kubelet may
// support more.
package podsupport
