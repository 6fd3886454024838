// Package ledger keeps a record of every credential that was issued and has not expired: who holds it, who requested it and
// with which credential, what it is bound to, and when and from where it was last used. A revoked credential has no record.
//
// A Batch is what storage holds: the records, revocations and uses of one commit. Memory holds the sum of all batches, and
// answers from it. Batches may be applied in any order and more than once: the sum is the same. So replicas that read the
// same batches know the same, and a revocation that arrives before the record holds.
//
// No record contains a credential. The ID of a token is its claim jti, and the ID of a certificate is a digest.
//
// # Memory
//
// A million tokens must fit into a few hundred MiB, must not keep the garbage collector busy, and must be found by what they
// have in common. So tokens are values without pointers in slabs, and refer to each other and to what they share by handles.
// All requests call State and Used, which take the lock of one of many shards, and wait neither for a batch nor for a long list.
//
// # Where to read
//
//   - record.go: records and batches. encode.go, decode.go: a batch as bytes.
//   - memory.go: Memory, and what expires. apply.go: how a batch changes it. shard.go: tokens by ID.
//   - index.go: from groups, such as all tokens of a node, to tokens. subject.go, minter.go: what tokens share.
//   - order.go: the tokens of a namespace in the order of pages. plain.go: certificates, and tokens whose ID is not a UUID.
//   - query.go, select.go, candidates.go: queries, and which index answers them. read.go: from handles to records.
//   - events.go: watches. slab.go, texts.go, uses.go, id.go: values without pointers.
//
// The package does not know storage: its user applies what storage holds, and stores what Marshal returns.
package ledger
