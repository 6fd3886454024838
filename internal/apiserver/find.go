package apiserver

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// What follows reads, for admission, an object as it is now.

func (a *assembly) findNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	found, err := a.stores.namespaces.Namespace.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, missing(err, corev1.Resource("namespaces"), name)
	}
	return found.(*corev1.Namespace), nil
}

func (a *assembly) findAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	found, err := a.stores.serviceAccounts.Get(request.WithNamespace(ctx, namespace), name, &metav1.GetOptions{})
	if err != nil {
		return nil, missing(err, corev1.Resource("serviceaccounts"), name)
	}
	return found.(*corev1.ServiceAccount), nil
}

func (a *assembly) findPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	found, err := a.stores.pods.Pod.Get(request.WithNamespace(ctx, namespace), name, &metav1.GetOptions{})
	if err != nil {
		return nil, missing(err, corev1.Resource("pods"), name)
	}
	return found.(*corev1.Pod), nil
}

func (a *assembly) listPods(ctx context.Context, namespace string) ([]*corev1.Pod, error) {
	list, err := a.stores.pods.Pod.List(request.WithNamespace(ctx, namespace), &internalversion.ListOptions{})
	if err != nil {
		return nil, err
	}
	items := list.(*corev1.PodList).Items
	pods := make([]*corev1.Pod, len(items))
	for i := range items {
		pods[i] = &items[i]
	}
	return pods, nil
}

func (a *assembly) findNode(ctx context.Context, name string) (*corev1.Node, error) {
	found, err := a.stores.nodes.Get(request.WithNamespace(ctx, metav1.NamespaceNone), name, &metav1.GetOptions{})
	if err != nil {
		return nil, missing(err, corev1.Resource("nodes"), name)
	}
	return found.(*corev1.Node), nil
}

// missing says of a not-found error what was not found: a store takes it to be of the request's resource, which is
// another where admission asks.
func missing(err error, resource schema.GroupResource, name string) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(resource, name)
	}
	return err
}

// findRules returns the rules of a role as it is now.
func (a *assembly) findRules(ctx context.Context, kind, namespace, name string) ([]rbacv1.PolicyRule, error) {
	if kind == "ClusterRole" {
		found, err := a.stores.clusterRoles.Get(request.WithNamespace(ctx, metav1.NamespaceNone), name, &metav1.GetOptions{})
		if err != nil {
			return nil, missing(err, rbacv1.Resource("clusterroles"), name)
		}
		return found.(*rbacv1.ClusterRole).Rules, nil
	}
	found, err := a.stores.roles.Get(request.WithNamespace(ctx, namespace), name, &metav1.GetOptions{})
	if err != nil {
		return nil, missing(err, rbacv1.Resource("roles"), name)
	}
	return found.(*rbacv1.Role).Rules, nil
}
