// Package role serves roles: what is refused, their table, their storage.
//
// It does not know who holds a role, nor whether its writer may grant what it grants.
package role
