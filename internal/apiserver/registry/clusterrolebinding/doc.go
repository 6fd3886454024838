// Package clusterrolebinding serves cluster role bindings: their defaults, what is refused, their table, their storage.
//
// It does not know what the bound role permits, nor whether its writer may grant it.
package clusterrolebinding
