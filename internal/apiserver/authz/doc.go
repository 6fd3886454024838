// Package authz presents the rules for nodes and the rbac index as the library's authorizer, and fills the index from feeds.
//
// It makes one decision itself: members of the group system:masters may do everything. The certificate of the local
// administrator has that group, and no policy can take its permissions away.
package authz
