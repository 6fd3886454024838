// Package namespace serves namespaces: their defaults, what is refused, their table, their storage.
//
// It does not know what a namespace holds, nor how it is emptied at its end.
package namespace
