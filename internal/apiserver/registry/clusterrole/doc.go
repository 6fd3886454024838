// Package clusterrole serves cluster roles: their table and their storage. Package internal/rbac/objects validates them.
//
// It does not know who holds a cluster role, nor gathers the rules of aggregated ones.
package clusterrole
