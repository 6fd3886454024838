// Package issuance keeps the ledger of issued credentials in etcd.
//
// A Journal writes batches of records and revocations as objects that are never changed, and that etcd removes when nothing in
// them is needed any more. All that wait while one batch is written go into the next one, so a credential costs a share of a
// write. A record or revocation is durable, and in the ledger's memory, before its caller continues.
//
// The memory learns of batches by a feed of package mirror, as of all other objects: before a write of this process returns, and
// by a watch of the writes of other replicas. A replica that does not know a token waits until the feed has everything that was
// written before, and then decides.
//
// The package does not know what credentials look like, who may issue or revoke them, or how they are served.
package issuance
