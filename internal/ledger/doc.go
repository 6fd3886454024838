// Package ledger keeps a record of every credential that was issued and has not expired: who holds it, who requested it and
// with which credential, what it is bound to, and when and from where it was last used. A revoked credential has no record.
//
// A Batch is what storage holds: the records, revocations and uses of one commit. Memory holds the sum of all batches, and
// answers from it. Batches may be applied in any order and more than once: the sum is the same.
//
// No record contains a credential. The ID of a token is its claim jti, and the ID of a certificate is a digest.
package ledger
