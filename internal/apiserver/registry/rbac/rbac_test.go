package rbac_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry/rbac"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestRows(t *testing.T) {
	t.Parallel()
	meta := &metav1.ObjectMeta{Name: "b", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour).In(time.FixedZone("", 7200)))}
	if diff := cmp.Diff([]any{"b", "2026-05-01T11:00:00Z"}, rbac.RoleRow(&rbacv1.Role{ObjectMeta: *meta}, now)); diff != "" {
		t.Errorf("role (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{"b", "<unknown>"}, rbac.RoleRow(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "b"}}, now)); diff != "" {
		t.Errorf("role without time (-want +got):\n%s", diff)
	}
	subjects := []rbacv1.Subject{
		{Kind: "User", Name: "jane"}, {Kind: "Group", Name: "ops"}, {Kind: "User", Name: "joe"},
		{Kind: "ServiceAccount", Namespace: "ci", Name: "bot"}, {Kind: "Robot", Name: "r"},
	}
	row := rbac.RoleBindingRow(&rbacv1.RoleBinding{
		ObjectMeta: *meta, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}, Subjects: subjects,
	}, now)
	if diff := cmp.Diff([]any{"b", "ClusterRole/view", "60m", "jane, joe", "ops", "ci/bot"}, row); diff != "" {
		t.Errorf("binding (-want +got):\n%s", diff)
	}
	if got, want := len(row), len(rbac.RoleBindingColumns); got != want {
		t.Errorf("%d cells for %d columns", got, want)
	}
	if got, want := len(rbac.RoleRow(&rbacv1.Role{ObjectMeta: *meta}, now)), len(rbac.RoleColumns); got != want {
		t.Errorf("%d cells for %d columns", got, want)
	}
}
