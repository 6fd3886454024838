// Package loopback is the client by which parts of the server use its API: an http.RoundTripper that calls the handler
// chain in the same process, without a socket and without TLS.
//
// A call passes audit, authorization and admission like a call from outside. Its identity is in the context of the
// request, under a key of this package, so that no request from outside can claim it: it is no header, and no
// credential exists that could leak. Every call has a deadline, bodies are bounded in both directions, and a handler
// that panics is an error.
//
// The package does not offer watches, since controllers listen to the feeds of package mirror, which report a change
// before the writer learns that it succeeded. It does not know what a caller may do.
package loopback
