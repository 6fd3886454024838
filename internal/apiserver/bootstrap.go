package apiserver

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/controller/policy"
	"lanyard.dev/internal/rbac/bootstrap"
)

// systemNamespaces exist in every authority, as in every cluster.
var systemNamespaces = []string{
	metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease,
}

// bootstrap adds what every authority has. It is run at each start and changes nothing that is there.
func (a *assembly) bootstrap(ctx context.Context) error {
	ctx = request.WithNamespace(ctx, metav1.NamespaceNone)
	for _, name := range systemNamespaces {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		a.scheme.Default(namespace)
		_, err := a.stores.namespaces.Namespace.Create(ctx, namespace, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make namespace %s: %w", name, err)
		}
	}
	stores := policy.Stores{
		ClusterRoles: a.stores.clusterRoles, ClusterRoleBindings: a.stores.clusterRoleBindings, Roles: a.stores.roles, RoleBindings: a.stores.roleBindings,
	}
	return policy.Reconcile(ctx, stores, policy.Defaults{
		ClusterRoles: bootstrap.ClusterRoles(), ClusterRoleBindings: bootstrap.ClusterRoleBindings(),
		Roles: bootstrap.Roles(), RoleBindings: bootstrap.RoleBindings(),
	})
}
