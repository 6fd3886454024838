// Package authz presents the rbac index as the library's authorizer, and feeds it.
//
// It decides nothing itself, save that the group system:masters may do everything: that group comes with a
// client certificate alone, as the local administrator's, and no policy can lock its holder out.
package authz
