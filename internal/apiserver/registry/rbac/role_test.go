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

func validRole() *rbacv1.Role {
	return &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "pod-reader", Namespace: "shop", ResourceVersion: "1"},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}},
	}
}

func TestRoleValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*rbacv1.Role)
		want   []fieldtest.Fault
	}{
		{"valid", func(*rbacv1.Role) {}, nil},
		{"no rules", func(r *rbacv1.Role) { r.Rules = nil }, nil},
		{"no namespace", func(r *rbacv1.Role) { r.Namespace = "" }, []fieldtest.Fault{fieldtest.Required("metadata.namespace", "")}},
		{"second rule", func(r *rbacv1.Role) {
			r.Rules = append(r.Rules, rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/"}})
		}, []fieldtest.Fault{fieldtest.Invalid("rules[1].nonResourceURLs", "namespaced rules cannot apply to non-resource URLs")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := validRole()
			test.mutate(r)
			fieldtest.Check(t, objects.ValidateRole(r), test.want...)
			fieldtest.Check(t, objects.ValidateRoleUpdate(r, r), test.want...)
		})
	}
	unversioned := validRole()
	unversioned.ResourceVersion = ""
	fieldtest.Check(t, objects.ValidateRoleUpdate(unversioned, validRole()),
		fieldtest.Invalid("metadata.resourceVersion", "must be specified for an update"))
}

func TestRoleRowAndFields(t *testing.T) {
	t.Parallel()
	r := validRole()
	r.CreationTimestamp = metav1.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	row := rbac.RoleRow(r, time.Time{})
	if diff := cmp.Diff([]any{"pod-reader", "2026-05-01T10:00:00Z"}, row); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if len(row) != len(rbac.RoleColumns) {
		t.Errorf("%d cells for %d columns", len(row), len(rbac.RoleColumns))
	}
	want := fields.Set{"metadata.name": "pod-reader", "metadata.namespace": "shop"}
	if diff := cmp.Diff(want, registry.NamespacedFields(r)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
