// Package rbac prints roles and bindings, and warns of rules that have no effect.
//
// Package internal/rbac/objects validates the four kinds and sets their defaults. The package does not know how a request
// is authorized.
package rbac

import (
	"context"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry"
)

// The columns of kubectl get, for the four kinds.
var (
	RoleColumns               = roleColumns("role")
	ClusterRoleColumns        = roleColumns("cluster role")
	RoleBindingColumns        = bindingColumns("role binding")
	ClusterRoleBindingColumns = bindingColumns("cluster role binding")
)

// RoleRow returns a cell for each of RoleColumns. The time is absolute, in UTC.
func RoleRow(r *rbacv1.Role, _ time.Time) []any { return roleRow(&r.ObjectMeta) }

// ClusterRoleRow returns a cell for each of ClusterRoleColumns. The time is absolute, in UTC.
func ClusterRoleRow(r *rbacv1.ClusterRole, _ time.Time) []any { return roleRow(&r.ObjectMeta) }

// RoleBindingRow returns a cell for each of RoleBindingColumns, with the age at the time now.
func RoleBindingRow(b *rbacv1.RoleBinding, now time.Time) []any {
	return bindingRow(&b.ObjectMeta, b.RoleRef, b.Subjects, now)
}

// ClusterRoleBindingRow returns a cell for each of ClusterRoleBindingColumns, with the age at the time now.
func ClusterRoleBindingRow(b *rbacv1.ClusterRoleBinding, now time.Time) []any {
	return bindingRow(&b.ObjectMeta, b.RoleRef, b.Subjects, now)
}

// ClusterRoleWarnings warns of rules that aggregation will replace. An update may contain rules that aggregation has set.
func ClusterRoleWarnings(_ context.Context, r *rbacv1.ClusterRole) []string {
	if r.AggregationRule == nil || len(r.Rules) == 0 {
		return nil
	}
	return []string{"rules: replaced by the rules of the roles that aggregationRule selects"}
}

// roleColumns returns the columns of roles. kind is the name of the kind in the descriptions.
func roleColumns(kind string) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the " + kind + "."},
		{Name: "Created At", Type: "date", Description: "Time at which the " + kind + " was created."},
	}
}

func roleRow(meta *metav1.ObjectMeta) []any {
	created := registry.UnknownCell
	if !meta.CreationTimestamp.IsZero() {
		created = meta.CreationTimestamp.UTC().Format(time.RFC3339)
	}
	return []any{meta.Name, created}
}

// bindingColumns returns the columns of bindings. kind is the name of the kind in the descriptions.
func bindingColumns(kind string) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the " + kind + "."},
		{Name: "Role", Type: "string", Description: "Kind and name of the role that is granted."},
		{Name: "Age", Type: "string", Description: "Time since the " + kind + " was created."},
		{Name: "Users", Type: "string", Priority: 1, Description: "Users who are granted the role."},
		{Name: "Groups", Type: "string", Priority: 1, Description: "Groups whose members are granted the role."},
		{Name: "ServiceAccounts", Type: "string", Priority: 1, Description: "Service accounts that are granted the role."},
	}
}

func bindingRow(meta *metav1.ObjectMeta, ref rbacv1.RoleRef, subjects []rbacv1.Subject, now time.Time) []any {
	var users, groups, accounts []string
	for i := range subjects {
		switch s := &subjects[i]; s.Kind {
		case rbacv1.UserKind:
			users = append(users, s.Name)
		case rbacv1.GroupKind:
			groups = append(groups, s.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{
		meta.Name, ref.Kind + "/" + ref.Name, registry.Age(meta.CreationTimestamp.Time, now),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", "),
	}
}
