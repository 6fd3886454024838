package rbac_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/fieldtest"
	"lanyard.dev/internal/apiserver/registry/rbac"
	"lanyard.dev/internal/rbac/objects"
)

func validRoleBinding() *rbacv1.RoleBinding {
	b := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "readers", Namespace: "shop", ResourceVersion: "1"},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{Kind: "Group", Name: "ops"}, {Kind: "ServiceAccount", Namespace: "ci", Name: "bot"}},
	}
	objects.SetRoleBindingDefaults(b)
	return b
}

func TestRoleBindingValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*rbacv1.RoleBinding)
		want   []fieldtest.Fault
	}{
		{"defaulted", func(*rbacv1.RoleBinding) {}, nil},
		{"no subjects", func(b *rbacv1.RoleBinding) { b.Subjects = nil }, nil},
		{"role", func(b *rbacv1.RoleBinding) { b.RoleRef.Kind = "Role" }, nil},
		{"account at home", func(b *rbacv1.RoleBinding) { b.Subjects[1].Namespace = "" }, nil},
		{"no namespace", func(b *rbacv1.RoleBinding) { b.Namespace = "" }, []fieldtest.Fault{fieldtest.Required("metadata.namespace", "")}},
		{"kind of role", func(b *rbacv1.RoleBinding) { b.RoleRef.Kind = "Group" },
			[]fieldtest.Fault{fieldtest.NotSupported("roleRef.kind", "ClusterRole")}},
		{"subject", func(b *rbacv1.RoleBinding) { b.Subjects[1].Name = "" },
			[]fieldtest.Fault{fieldtest.Required("subjects[1].name", "")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := validRoleBinding()
			test.mutate(b)
			fieldtest.Check(t, objects.ValidateRoleBinding(b), test.want...)
			fieldtest.Check(t, objects.ValidateRoleBindingUpdate(b, b), test.want...)
		})
	}
}

func TestRoleBindingRoleRefStays(t *testing.T) {
	t.Parallel()
	updated := validRoleBinding()
	updated.Subjects = nil
	fieldtest.Check(t, objects.ValidateRoleBindingUpdate(updated, validRoleBinding()))
	updated.RoleRef.Name = "cluster-admin"
	fieldtest.Check(t, objects.ValidateRoleBindingUpdate(updated, validRoleBinding()), fieldtest.Invalid("roleRef", "cannot change roleRef"))
}

func TestRoleBindingRowAndFields(t *testing.T) {
	t.Parallel()
	b := validRoleBinding()
	b.CreationTimestamp = metav1.NewTime(now.Add(-48 * time.Hour))
	row := rbac.RoleBindingRow(b, now)
	if diff := cmp.Diff([]any{"readers", "ClusterRole/view", "2d", "", "ops", "ci/bot"}, row); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if len(row) != len(rbac.RoleBindingColumns) {
		t.Errorf("%d cells for %d columns", len(row), len(rbac.RoleBindingColumns))
	}
	if diff := cmp.Diff(fields.Set{"metadata.name": "readers", "metadata.namespace": "shop"}, registry.NamespacedFields(b)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
