package rolebinding_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"lanyard.dev/internal/apiserver/registry/fieldtest"
	"lanyard.dev/internal/apiserver/registry/rolebinding"
	"lanyard.dev/internal/rbac/objects"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func valid() *rbacv1.RoleBinding {
	b := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "readers", Namespace: "shop", ResourceVersion: "1"},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{Kind: "Group", Name: "ops"}, {Kind: "ServiceAccount", Namespace: "ci", Name: "bot"}},
	}
	objects.SetRoleBindingDefaults(b)
	return b
}

func TestValidate(t *testing.T) {
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
			b := valid()
			test.mutate(b)
			fieldtest.Check(t, objects.ValidateRoleBinding(b), test.want...)
			fieldtest.Check(t, objects.ValidateRoleBindingUpdate(b, b), test.want...)
		})
	}
}

func TestRoleRefStays(t *testing.T) {
	t.Parallel()
	updated := valid()
	updated.Subjects = nil
	fieldtest.Check(t, objects.ValidateRoleBindingUpdate(updated, valid()))
	updated.RoleRef.Name = "cluster-admin"
	fieldtest.Check(t, objects.ValidateRoleBindingUpdate(updated, valid()), fieldtest.Invalid("roleRef", "cannot change roleRef"))
}

func TestRowAndFields(t *testing.T) {
	t.Parallel()
	b := valid()
	b.CreationTimestamp = metav1.NewTime(now.Add(-48 * time.Hour))
	row := rolebinding.Row(b, now)
	if diff := cmp.Diff([]any{"readers", "ClusterRole/view", "2d", "", "ops", "ci/bot"}, row); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if len(row) != len(rolebinding.Columns) {
		t.Errorf("%d cells for %d columns", len(row), len(rolebinding.Columns))
	}
	if diff := cmp.Diff(fields.Set{"metadata.name": "readers", "metadata.namespace": "shop"}, rolebinding.Fields(b)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
