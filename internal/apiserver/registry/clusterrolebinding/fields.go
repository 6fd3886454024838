package clusterrolebinding

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Fields returns what a field selector may ask of b.
func Fields(b *rbacv1.ClusterRoleBinding) fields.Set { return fields.Set{"metadata.name": b.Name} }
