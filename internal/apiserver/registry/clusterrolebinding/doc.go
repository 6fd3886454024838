// Package clusterrolebinding serves cluster role bindings: their table and their storage. Package internal/rbac/objects validates them.
//
// It does not know what the bound role permits, nor whether its writer may grant it.
package clusterrolebinding
