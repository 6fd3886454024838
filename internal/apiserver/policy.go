package apiserver

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/apiserver/authz"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/bootstrap"
)

// policy decides what a user may do.
type policy struct {
	index      *rbac.Index
	authorizer *authz.Union
	// pods is the index of pods by node, which controllers use too.
	pods *nodeaccess.Pods
}

// newPolicy returns the policy that is stored. Its parts learn of each change of a role, a binding or a pod before the
// write returns.
func newPolicy(s *storage) policy {
	index := rbac.NewIndex()
	var sources []authz.Source
	for resource, kind := range map[string]rbac.Kind{
		"roles": rbac.Role, "rolebindings": rbac.RoleBinding, "clusterroles": rbac.ClusterRole, "clusterrolebindings": rbac.ClusterRoleBinding,
	} {
		feed := s.mirror.Feed(rbacv1.Resource(resource))
		feed.Listen(authz.NewPolicy(index, kind))
		sources = append(sources, feed)
	}
	feed := s.feed("pods")
	pods := nodeaccess.NewPods(feed)
	feed.Listen(pods)
	nodes := authz.NewNode(nodeaccess.NewRules(pods, bootstrap.NodeRules()), feed)
	return policy{index: index, authorizer: authz.NewUnion(nodes, authz.New(index, sources...)), pods: pods}
}
