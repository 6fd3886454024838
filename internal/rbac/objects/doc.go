// Package objects fills in the defaults of the four RBAC kinds and validates them, as an API server does before it stores
// them.
//
// It does not know how a request is decided, nor whether a writer may grant what an object grants.
package objects
