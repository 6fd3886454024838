// Package rbacrules holds what the four RBAC kinds share: the rules of roles, the role references and subjects of
// bindings, and how both are printed.
//
// It does not know how a request is decided, nor whether a writer may grant what a rule grants.
package rbacrules
