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
