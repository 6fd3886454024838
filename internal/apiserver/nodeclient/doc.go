// Package nodeclient connects the authority to the agents of nodes: for the logs of a container, for a command in it, for
// a port of a pod.
//
// Both ends show a certificate. The authority is known to the node by its client certificate. The node's must come from
// the CA, be for the address that was dialled, and name the very node that was asked for: a Node's addresses are what the
// node says of itself, so without the name one node could have the sessions of another sent to it.
//
// The package knows no pod and no path.
package nodeclient
