package rbacrules

import (
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry/age"
)

// RoleColumns returns the columns of roles, whose kind the descriptions name.
func RoleColumns(kind string) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the " + kind + "."},
		{Name: "Created At", Type: "date", Description: "Time at which the " + kind + " was created."},
	}
}

// RoleRow returns a cell for each of RoleColumns. The time is absolute, in UTC.
func RoleRow(meta *metav1.ObjectMeta) []any {
	created := age.Unknown
	if !meta.CreationTimestamp.IsZero() {
		created = meta.CreationTimestamp.UTC().Format(time.RFC3339)
	}
	return []any{meta.Name, created}
}

// BindingColumns returns the columns of bindings, whose kind the descriptions name.
func BindingColumns(kind string) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the " + kind + "."},
		{Name: "Role", Type: "string", Description: "Kind and name of the role that is granted."},
		{Name: "Age", Type: "string", Description: "Time since the " + kind + " was created."},
		{Name: "Users", Type: "string", Priority: 1, Description: "Users who are granted the role."},
		{Name: "Groups", Type: "string", Priority: 1, Description: "Groups whose members are granted the role."},
		{Name: "ServiceAccounts", Type: "string", Priority: 1, Description: "Service accounts that are granted the role."},
	}
}

// BindingRow returns a cell for each of BindingColumns, the age as of now.
func BindingRow(meta *metav1.ObjectMeta, ref rbacv1.RoleRef, subjects []rbacv1.Subject, now time.Time) []any {
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
		meta.Name, ref.Kind + "/" + ref.Name, age.Since(meta.CreationTimestamp.Time, now),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", "),
	}
}
