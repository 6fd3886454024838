// Package configmap serves config maps: what is refused, their table, their storage.
//
// It does not know what any key of a config map means.
package configmap
