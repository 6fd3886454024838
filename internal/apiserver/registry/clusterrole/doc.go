// Package clusterrole serves cluster roles: what is refused, their table, their storage.
//
// It does not know who holds a cluster role, nor gathers the rules of aggregated ones.
package clusterrole
