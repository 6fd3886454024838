// Package nodeclient connects the authority to the agents on nodes, for the logs of a container, a command in a container,
// or a port of a pod.
//
// Both ends present a certificate. The authority presents its client certificate. The certificate of the node must be signed
// by the CA, be valid for the address that was dialled, and name the node. The name is necessary because a node writes its
// own addresses: without it, a node could have the sessions of another node sent to itself.
//
// The package knows no pods and no paths.
package nodeclient
