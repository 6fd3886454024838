// Package nodeapproval approves the certificate requests with which machines become nodes, and nodes renew their
// certificates, so that nobody has to be asked for each.
//
// It approves only what a node's client certificate looks like, and only for a requester whom policy allows to have it
// approved: create on certificatesigningrequests/nodeclient for any node's, on .../selfnodeclient for the requester's
// own. A certificate to serve with it approves for the very node that asks, if policy allows .../selfnodeserver, at
// addresses that are not the authority's. What it does not approve it leaves alone, for a person to decide. It signs nothing, and knows no HTTP.
package nodeapproval
