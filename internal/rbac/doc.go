// Package rbac decides requests by the rules of rbac.authorization.k8s.io/v1, and gives the reasons of its decisions.
//
// An [Index] holds the compiled policy: it leads from a subject and a namespace straight to the rules that apply. So a
// decision costs in proportion to what the subject was granted, not to the size of the policy. Readers take no lock. A
// write changes the entries of the subjects of a binding. A role is replaced in one place, however many bindings refer to it.
//
// The layout of the index, and the reasons:
//
//   - A scope is an identity (a user or group name) in a namespace or in the whole cluster. Scopes are found in a hash table
//     that readers search without a lock. Alternatives were slower: sync.Map allocates for each string key that is looked
//     up, the readers of a read-write lock contend for one cache line, and look-ups in copied Go maps took twice as long at
//     100,000 bindings as at 10.
//   - A scope lists the distinct roles granted there, each with its bindings. A role is reached through a slot that exists
//     also while the role does not. So a binding may precede its role, and creating a role again makes its bindings effective.
//   - A scope with few roles tests them in turn. A scope with many, such as the scope of system:authenticated, keeps a persistent
//     ordered tree of rules by resource and name, which is updated in logarithmic time.
//
// The package does not know HTTP, storage, watches, admission or authentication. It keeps references to the objects that it
// is given, so callers must not modify them afterwards.
package rbac
