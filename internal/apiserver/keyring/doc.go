// Package keyring keeps the signing keys of an authority in etcd, and follows them.
//
// All keys are one object, a rotation.Ring, encrypted like Secrets. It is not served. So a change of several keys is one write,
// of which the object's revision decides: of two replicas that change the keys at once, one writes, and the other computes its
// change again from what was written.
//
// A Keyring is a signingkey.KeySource. The issuer, the verifier and the key set document read it, and its feed delivers a change
// before the write returns. So all three have the new keys when the request that changed them is answered. Another replica
// learns of the change from its watch. It refuses no token for a key that it does not know before it has read the keys from
// etcd, and decides nothing while its feed is stale.
//
// The package knows neither when keys change nor who may change them.
package keyring
