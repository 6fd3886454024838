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

func validClusterRoleBinding() *rbacv1.ClusterRoleBinding {
	b := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "readers", ResourceVersion: "1"},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{Kind: "Group", Name: "ops"}, {Kind: "ServiceAccount", Namespace: "ci", Name: "bot"}},
	}
	objects.SetClusterRoleBindingDefaults(b)
	return b
}

func TestClusterRoleBindingValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*rbacv1.ClusterRoleBinding)
		want   []fieldtest.Fault
	}{
		{"defaulted", func(*rbacv1.ClusterRoleBinding) {}, nil},
		{"no subjects", func(b *rbacv1.ClusterRoleBinding) { b.Subjects = nil }, nil},
		{"role", func(b *rbacv1.ClusterRoleBinding) { b.RoleRef.Kind = "Role" },
			[]fieldtest.Fault{fieldtest.NotSupported("roleRef.kind", `supported values: "ClusterRole"`)}},
		{"account nowhere", func(b *rbacv1.ClusterRoleBinding) { b.Subjects[1].Namespace = "" },
			[]fieldtest.Fault{fieldtest.Required("subjects[1].namespace", "")}},
		{"kind of role", func(b *rbacv1.ClusterRoleBinding) { b.RoleRef.Kind = "Group" },
			[]fieldtest.Fault{fieldtest.NotSupported("roleRef.kind", "ClusterRole")}},
		{"subject", func(b *rbacv1.ClusterRoleBinding) { b.Subjects[1].Name = "" },
			[]fieldtest.Fault{fieldtest.Required("subjects[1].name", "")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := validClusterRoleBinding()
			test.mutate(b)
			fieldtest.Check(t, objects.ValidateClusterRoleBinding(b), test.want...)
			fieldtest.Check(t, objects.ValidateClusterRoleBindingUpdate(b, b), test.want...)
		})
	}
}

func TestClusterRoleBindingRoleRefStays(t *testing.T) {
	t.Parallel()
	updated := validClusterRoleBinding()
	updated.Subjects = nil
	fieldtest.Check(t, objects.ValidateClusterRoleBindingUpdate(updated, validClusterRoleBinding()))
	updated.RoleRef.Name = "cluster-admin"
	fieldtest.Check(t, objects.ValidateClusterRoleBindingUpdate(updated, validClusterRoleBinding()), fieldtest.Invalid("roleRef", "cannot change roleRef"))
}

func TestClusterRoleBindingRowAndFields(t *testing.T) {
	t.Parallel()
	b := validClusterRoleBinding()
	b.CreationTimestamp = metav1.NewTime(now.Add(-48 * time.Hour))
	row := rbac.ClusterRoleBindingRow(b, now)
	if diff := cmp.Diff([]any{"readers", "ClusterRole/view", "2d", "", "ops", "ci/bot"}, row); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if len(row) != len(rbac.ClusterRoleBindingColumns) {
		t.Errorf("%d cells for %d columns", len(row), len(rbac.ClusterRoleBindingColumns))
	}
	if diff := cmp.Diff(fields.Set{"metadata.name": "readers"}, registry.ClusterFields(b)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
