// Package limits limits the requests that are served at the same time, and the bytes of their bodies.
//
// One caller never holds more than is left free for others, so a newcomer finds room while anything is free, and
// nodes, Leases and token requests find room that other requests cannot take. A request that finds no room is refused
// at once with 429 and a Retry-After. The package does not decide who calls or what is allowed: it runs after
// authentication and before authorization.
package limits
