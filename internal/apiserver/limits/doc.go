// Package limits bounds what one caller can take of a server: connections, requests in flight, and the memory of request
// bodies.
//
// A Pool divides each of these. One caller never holds more than is left free for others, so a new caller finds room
// while there is any, and nodes, Leases and token requests find room that other requests cannot take. The listener closes
// a connection that finds no room; the request limiter refuses a request that finds none with 429 and Retry-After. Nothing
// waits for room.
//
// The package does not decide who a caller is or what it may do: the request limiter runs after authentication and before
// authorization.
package limits
