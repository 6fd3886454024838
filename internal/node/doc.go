// Package node runs the agent of one machine: it joins an authority, registers the machine as a Node, renews the node's
// Lease, and runs the pods that are bound to it.
//
// This package assembles the agent from the packages below it: pod decides what to do for a pod, cri does it in the
// container runtime, volume and tokenvolume provide the pod's volumes, and server serves logs and exec. The agent talks to
// the authority over the Kubernetes API alone, as a kubelet does.
package node
