// Package objects keeps the secrets, config maps and service accounts that the node's pods name, each by a watch of its own,
// since a node may read single objects and no lists.
//
// Pods share what they name: one watch serves as many pods as there are, and ends with the last of them. Once an object
// has been seen, it is served from memory, also while the authority cannot be reached. The package knows neither what
// pods do with the objects nor where they end up; it never writes one.
package objects
