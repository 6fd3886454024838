// Package lease serves leases: what is refused, their table, their storage.
//
// It does not know who competes for a lease, nor when one has run out.
package lease
