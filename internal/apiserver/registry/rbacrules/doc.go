// Package rbacrules prints what the four RBAC kinds have in common: the tables of roles and of bindings.
//
// It does not know which objects are valid, nor how a request is decided.
package rbacrules
