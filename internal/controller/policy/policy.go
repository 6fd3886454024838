// Package policy keeps the default roles and bindings in place.
//
// At each start it adds what is missing: a whole object, a rule, a subject. It takes nothing away that an administrator
// added, and leaves an object alone whose annotation rbac.authorization.kubernetes.io/autoupdate is "false".
package policy

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
)

// Store is the part of a resource's store that is used.
type Store interface {
	rest.Getter
	rest.Creater
	rest.Updater
	rest.GracefulDeleter
}

// Reconcile brings the stored policy up to the given defaults.
func Reconcile(ctx context.Context, roles, bindings Store, defaultRoles []*rbacv1.ClusterRole, defaultBindings []*rbacv1.ClusterRoleBinding) error {
	for _, role := range defaultRoles {
		o := reconciliation.ReconcileRoleOptions{
			Role: reconciliation.ClusterRoleRuleOwner{ClusterRole: role}, Client: roleClient{ctx, roles}, Confirm: true,
		}
		if err := onceMore(func() error { _, err := o.Run(); return err }); err != nil {
			return fmt.Errorf("reconcile cluster role %s: %w", role.Name, err)
		}
	}
	for _, binding := range defaultBindings {
		o := reconciliation.ReconcileRoleBindingOptions{
			RoleBinding: reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: binding},
			Client:      bindingClient{ctx, bindings}, Confirm: true,
		}
		if err := onceMore(func() error { _, err := o.Run(); return err }); err != nil {
			return fmt.Errorf("reconcile cluster role binding %s: %w", binding.Name, err)
		}
	}
	return nil
}

// onceMore tries again when another replica reconciles the same object.
func onceMore(fn func() error) error { return retry.RetryOnConflict(retry.DefaultRetry, fn) }

// roleClient presents a store of cluster roles to the reconciliation.
type roleClient struct {
	ctx   context.Context
	store Store
}

func (c roleClient) Get(_, name string) (reconciliation.RuleOwner, error) {
	return ownerOf(c.store.Get(c.ctx, name, &metav1.GetOptions{}))
}

func (c roleClient) Create(in reconciliation.RuleOwner) (reconciliation.RuleOwner, error) {
	return ownerOf(c.store.Create(c.ctx, in.GetObject(), rest.ValidateAllObjectFunc, &metav1.CreateOptions{}))
}

func (c roleClient) Update(in reconciliation.RuleOwner) (reconciliation.RuleOwner, error) {
	return ownerOf(update(c.ctx, c.store, in.GetName(), in.GetObject()))
}

func ownerOf(obj runtime.Object, err error) (reconciliation.RuleOwner, error) {
	if err != nil {
		return nil, err
	}
	return reconciliation.ClusterRoleRuleOwner{ClusterRole: obj.(*rbacv1.ClusterRole)}, nil
}

// bindingClient presents a store of cluster role bindings to the reconciliation.
type bindingClient struct {
	ctx   context.Context
	store Store
}

func (c bindingClient) Get(_, name string) (reconciliation.RoleBinding, error) {
	return bindingOf(c.store.Get(c.ctx, name, &metav1.GetOptions{}))
}

func (c bindingClient) Create(in reconciliation.RoleBinding) (reconciliation.RoleBinding, error) {
	return bindingOf(c.store.Create(c.ctx, in.GetObject(), rest.ValidateAllObjectFunc, &metav1.CreateOptions{}))
}

func (c bindingClient) Update(in reconciliation.RoleBinding) (reconciliation.RoleBinding, error) {
	return bindingOf(update(c.ctx, c.store, in.GetName(), in.GetObject()))
}

func (c bindingClient) Delete(_, name string, uid types.UID) error {
	options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
	_, _, err := c.store.Delete(c.ctx, name, rest.ValidateAllObjectFunc, options)
	return err
}

func bindingOf(obj runtime.Object, err error) (reconciliation.RoleBinding, error) {
	if err != nil {
		return nil, err
	}
	return reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: obj.(*rbacv1.ClusterRoleBinding)}, nil
}

func update(ctx context.Context, store Store, name string, obj runtime.Object) (runtime.Object, error) {
	out, _, err := store.Update(ctx, name, rest.DefaultUpdatedObjectInfo(obj),
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	return out, err
}
