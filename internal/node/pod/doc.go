// Package pod runs the pods of a node: one worker for each compares what the API wants with what the container runtime
// holds, does the next thing, and says in status and events what came of it.
//
// What to do next is decided by a pure function (decide.go) from the pod, the runtime's state, the time and what failed
// before; everything else carries it out. It does not know CRI, how a volume comes to hold its files, how the pods of the
// node are learned of, or HTTP.
package pod
