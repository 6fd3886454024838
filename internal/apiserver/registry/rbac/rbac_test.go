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

const selectors = "aggregationRule.clusterRoleSelectors"

func validClusterRole() *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "system:metrics", ResourceVersion: "1"},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}}},
	}
}

func aggregate(s ...metav1.LabelSelector) func(*rbacv1.ClusterRole) {
	return func(r *rbacv1.ClusterRole) { r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: s} }
}

func TestClusterRoleValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		mutate func(*rbacv1.ClusterRole)
		want   []fieldtest.Fault
	}{
		{"valid", func(*rbacv1.ClusterRole) {}, nil},
		{"aggregated", aggregate(metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}), nil},
		{"namespace", func(r *rbacv1.ClusterRole) { r.Namespace = "shop" },
			[]fieldtest.Fault{fieldtest.Forbidden("metadata.namespace", "not allowed on this type")}},
		{"rule", func(r *rbacv1.ClusterRole) { r.Rules[0].Verbs = nil },
			[]fieldtest.Fault{fieldtest.Required("rules[0].verbs", "verbs must contain at least one value")}},
		{"no selectors", aggregate(),
			[]fieldtest.Fault{fieldtest.Required(selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil")}},
		{"label value", aggregate(metav1.LabelSelector{}, metav1.LabelSelector{MatchLabels: map[string]string{"a": "b c"}}), []fieldtest.Fault{
			fieldtest.Invalid(selectors+"[1].matchLabels", "a valid label must be"),
			fieldtest.Invalid(selectors+"[1]", "invalid label selector."),
		}},
		{"operator", aggregate(metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}), []fieldtest.Fault{
			fieldtest.Invalid(selectors+"[0].matchExpressions[0].operator", "not a valid selector operator"),
			fieldtest.Invalid(selectors+"[0]", "invalid label selector."),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := validClusterRole()
			test.mutate(r)
			fieldtest.Check(t, objects.ValidateClusterRole(r), test.want...)
			old := validClusterRole()
			old.Namespace = r.Namespace
			fieldtest.Check(t, objects.ValidateClusterRoleUpdate(r, old), test.want...)
		})
	}
}

func TestClusterRoleUpdateKeepsAnOldLabelValue(t *testing.T) {
	t.Parallel()
	old := validClusterRole()
	aggregate(metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "In", Values: []string{"b c"}}}})(old)
	errs := objects.ValidateClusterRoleUpdate(old.DeepCopy(), old)
	fieldtest.Check(t, errs, fieldtest.Invalid(selectors+"[0]", "invalid label selector."))
}

func TestClusterRoleRowAndFields(t *testing.T) {
	t.Parallel()
	r := validClusterRole()
	row := rbac.ClusterRoleRow(r, time.Time{})
	if diff := cmp.Diff([]any{"system:metrics", "<unknown>"}, row); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if len(row) != len(rbac.ClusterRoleColumns) {
		t.Errorf("%d cells for %d columns", len(row), len(rbac.ClusterRoleColumns))
	}
	if diff := cmp.Diff(fields.Set{"metadata.name": "system:metrics"}, registry.ClusterFields(r)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

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
