package clusterrole

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Warnings tells of rules that will not last. An update may carry those that aggregation has filled in.
func Warnings(_ context.Context, r *rbacv1.ClusterRole) []string {
	if r.AggregationRule == nil || len(r.Rules) == 0 {
		return nil
	}
	return []string{"rules: replaced by the rules of the roles that aggregationRule selects"}
}
