// Package node serves nodes: their defaults, what is refused, their table, their storage.
//
// It does not know what runs on a node, nor which node a caller may speak for.
package node
