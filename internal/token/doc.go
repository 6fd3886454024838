// Package token issues, parses and verifies service account tokens: JWTs with the claims Kubernetes gives them.
//
// Verification has two layers. What cannot change, that a key signed these very bytes and what they claim, is
// established once and cached. What can change, the time, the keys accepted, and the objects the token is bound to, is
// checked on every call, so that nothing is accepted on the strength of an earlier answer.
//
// Where Lanyard is stricter than kube-apiserver: a token is refused from its `exp` on, without the minute of leeway;
// `exp`, `aud` and the `kubernetes.io` claims are required, so legacy tokens from Secrets are refused; `crit` headers,
// duplicate members and non-canonical base64 are refused; and a pod's token is refused if the pod runs as another
// account or on another node than the token says. `nbf` and `iat` may lie ahead by a minute, as in Kubernetes.
//
// The package knows no HTTP, no storage and no policy: where anchors come from, who may ask for a token and what the
// bearer may do are its callers' business. It logs nothing, and none of its errors contains any part of a token that
// has not been verified; not even those of a verified one contain its encoded form.
package token
