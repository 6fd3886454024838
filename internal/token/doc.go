// Package token issues, parses and verifies service account tokens: JWTs with the claims that Kubernetes gives them.
//
// Verification has two layers. Facts cannot change: a key signed these bytes, and they contain these claims. A Verifier
// establishes them once and caches them. Everything that can change is checked on every call: the time, the accepted keys,
// and the objects that the token is bound to. So a token is never accepted because of an earlier result.
//
// Lanyard is stricter than kube-apiserver in these points:
//   - A token is refused from its exp on. There is no leeway of a minute.
//   - The claims exp, aud and kubernetes.io are required, so legacy tokens from Secrets are refused.
//   - Headers with crit, duplicate members, and base64 that is not canonical are refused.
//   - A pod's token is refused if the pod runs as another account, or on another node, than the claims of the token state.
//
// As in Kubernetes, nbf and iat may be up to a minute in the future.
//
// The package does not know HTTP, storage or policy. Its callers decide where anchors come from, who may request a token,
// and what its bearer may do. It logs nothing. Its errors contain no part of a token that is not verified, and never the
// encoded form of a token.
package token
