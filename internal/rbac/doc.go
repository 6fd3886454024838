// Package rbac decides who may do what, and says why, by the rules of
// rbac.authorization.k8s.io/v1.
//
// An [Index] holds the policy compiled: subject and scope lead straight to the
// rules that apply, so a decision costs what the asking subject was granted
// and not what the whole policy holds. Readers take no lock. A write touches
// the subjects of the binding it changes, and a role that changes is swapped
// in one place however many bindings refer to it.
//
// How the index is laid out, and why:
//
//   - Each pair of an identity (a user or group name) and a namespace, or the
//     cluster, is a scope, found in a hash table that readers search without a
//     lock. It was chosen over sync.Map, which allocates for each string key
//     looked up; over a read-write lock, whose readers contend for one cache
//     line; and over copied Go maps, whose look-ups took twice as long at
//     100,000 bindings as at 10.
//   - A scope lists the distinct roles granted there, each with its bindings.
//     Roles are reached through a slot that outlives the role, so a binding may
//     precede its role, and re-creating a role revives its bindings.
//   - A scope with few roles tests them in turn. One with many (that of a group
//     such as system:authenticated, say) keeps a persistent ordered tree of
//     rules by resource and name, updated in logarithmic time.
//
// The package knows nothing of HTTP, of where policy objects are stored or
// watched, of admission, nor of who authenticated the user. Objects handed to
// it are kept by reference and must not be modified afterwards.
package rbac
