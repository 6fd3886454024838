// Package systemtest tests the whole authority from outside: real processes, real etcd, real HTTPS and client-go.
//
// It holds tests and benchmarks only, one topic a file: what the API means, secrecy, verification and revocation of
// tokens, RBAC, namespaces, crashes and orderly ends, load. Tests that only need some authority share one and keep apart
// by namespace; those that read its files, kill or overload it start their own.
//
// It deliberately knows nothing of how the server is made: where it names an internal package, it is to forge what the
// API would not give out, or to start what the product starts.
package systemtest
