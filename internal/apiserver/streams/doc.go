// Package streams ends watches and sessions whose callers lose their credentials or their rights.
//
// A stream is a request that lasts: a watch, or a session with a container (exec, attach, port-forward, log). The server
// authenticates and authorizes a request when it begins. Registry keeps, for each open stream, the credential that the caller
// presented and each decision that allowed the request, and asks the same authenticator and the same authorizer again while
// the stream is open. A stream ends as soon as one of them refuses: the context of its request is cancelled. The client then
// sees the orderly end of a watch, tries again, and gets 401 or 403.
//
// # When streams are checked
//
// Soon after each call of Wake, which means that something has changed that a caller may depend on, and at the beginning of
// each second, because times in credentials are whole seconds. Calls of Wake during a check lead to one further check. After a
// check, the registry pauses for several times as long as the check took, so that many changes do not occupy a processor.
//
// Streams with the same credential share one check of it, and streams of the same user with the same request share one
// decision.
//
// # Answers that are not certain
//
// While storage does not answer, it may be unknown whether a caller is still accepted. Requests are then answered with 503
// (package outage). An open stream goes on, for a limited time:
//
//   - A feed that is stale has had no proof of freshness for mirror.MaxLag. A stream that depends on it ends at the next check. So
//     no stream uses a right that was taken away longer ago than mirror.MaxLag and the time between two checks.
//   - After any other uncertain answer, as when storage does not confirm a refusal, a stream ends when the last check that
//     accepted it was MaxLag ago.
//
// The package knows neither tokens nor certificates nor policy.
package streams
