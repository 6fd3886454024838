// Package authz presents the node rules and the rbac index as the library's authorizer, and feeds the latter.
//
// It decides nothing itself, save that the group system:masters may do everything: that group comes with
// the local administrator's certificate, and no policy can lock its holder out.
package authz
