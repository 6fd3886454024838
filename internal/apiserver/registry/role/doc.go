// Package role serves roles: their table and their storage. Package internal/rbac/objects validates them.
//
// It does not know who holds a role, nor whether its writer may grant what it grants.
package role
