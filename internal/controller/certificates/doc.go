// Package certificates signs approved certificate signing requests, each signer by its own rules, and removes requests
// that are over.
//
// It approves nothing, and does not know who did.
package certificates
