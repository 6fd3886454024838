// Package connection limits the connections of a server: how many there are in all and from one address, and how long
// a connection that carries many requests may stay blocked. It does not know TLS or HTTP.
package connection
