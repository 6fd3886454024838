// Package node runs the agent of one machine: it joins an authority, registers the machine as a Node, keeps its Lease, and
// has the pods that are bound to it run.
//
// This package is the assembly. What a pod needs is in the packages below: pod decides, cri runs, volume and tokenvolume
// deliver, server lets kubectl look in. It talks to the authority over the Kubernetes API alone, as a kubelet does.
package node
