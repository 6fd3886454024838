// Package pod runs the pods of a node. One worker for each pod compares the pod's object with the state of the container
// runtime, takes the next step, and reports the result in the pod's status and in events.
//
// The next step is decided by a function without side effects (decide.go), from the pod, the runtime's state, the time, and
// earlier failures. The other files carry it out. The package does not know CRI, how a volume gets its files, how the agent
// finds the pods of the node, or HTTP.
package pod
