// Package bootstraptoken makes, reads and verifies bootstrap tokens: the short-lived credentials with which a machine
// that has none yet asks to become a node.
//
// A token is "ID.SECRET", six and sixteen characters of a-z and 0-9. It lives in a Secret of type
// bootstrap.kubernetes.io/token called bootstrap-token-ID in kube-system, in the form Kubernetes gives it. Memory keeps
// what is needed to verify one, which is not the secret itself but its hash. The package knows no HTTP and no storage.
package bootstraptoken
