// Package systemtest tests the whole authority from outside: real processes, real etcd, real HTTPS, client-go and kubectl.
//
// Each file is one story and begins with the promise that its tests hold:
//
//	api_*        the API behaves as Kubernetes' does: objects, lists, encodings, discovery, pods, single kinds, namespaces, reviews
//	tokens_*     tokens: forged, issued, revoked
//	ledger_*     the ledger: replicas beside a model, kills, a million tokens
//	rbac*        permissions, also by large and malformed policies
//	signin       the other credentials: certificates, bootstrap tokens, tokens of other issuers
//	secrecy      nothing secret is written to logs, audit log, metrics or disk
//	crash*       kills, ordinary ends, full disks
//	load, flood  many clients, large requests, one hostile caller; benchmarks of requests
//	node_*       what a node may do, the certificates of nodes, and the remedies of docs/security.md against a thief
//	sessions     kubectl logs, exec, attach, cp and port-forward
//	pod_*        pods on a real containerd (Linux): spec, tokens, kubectl, status, crashes; the benchmark of pods
//	fixture_*    what the stories share; main_test.go has the shared authority
//
// Tests that need only some authority share one, and keep apart by namespace. Tests that read an authority's files, kill it or
// overload it start their own. The stories are one package, because each package would link a test binary of 170 MB and
// start a shared authority and containerd of its own.
//
// The package imports internal packages only to forge what the API would not issue, and to start what the product starts.
package systemtest
