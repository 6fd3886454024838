package objects_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"lanyard.dev/internal/rbac/bootstrap"
	"lanyard.dev/internal/rbac/objects"
)

// role returns a role with the label L=true for each L in to, which selects the labels in from. Its one rule names a
// resource of the name of the role.
func role(name, to, from string) *rbacv1.ClusterRole {
	r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}, Rules: rules(name)}
	for _, label := range strings.Fields(to) {
		r.Labels[label] = "true"
	}
	for _, label := range strings.Fields(from) {
		if r.AggregationRule == nil {
			r.AggregationRule = &rbacv1.AggregationRule{}
		}
		selector := metav1.LabelSelector{MatchLabels: map[string]string{label: "true"}}
		r.AggregationRule.ClusterRoleSelectors = append(r.AggregationRule.ClusterRoleSelectors, selector)
	}
	return r
}

func rules(names ...string) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for _, name := range names {
		out = append(out, rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{name}})
	}
	return out
}

func listOf(roles []*rbacv1.ClusterRole) objects.ListRoles {
	return func(selector labels.Selector) (matched []*rbacv1.ClusterRole, err error) {
		for _, r := range roles {
			if selector.Matches(labels.Set(r.Labels)) {
				matched = append(matched, r)
			}
		}
		return matched, nil
	}
}

func TestAggregatedRules(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		roles []*rbacv1.ClusterRole
		want  []string // of the first role
	}{
		"nothing matches":      {[]*rbacv1.ClusterRole{role("whole", "", "x"), role("a", "y", "")}, nil},
		"by name":              {[]*rbacv1.ClusterRole{role("whole", "", "x"), role("b", "x", ""), role("a", "x", ""), role("c", "y", "")}, []string{"a", "b"}},
		"selector by selector": {[]*rbacv1.ClusterRole{role("whole", "", "x y"), role("a", "y", ""), role("b", "x", "")}, []string{"b", "a"}},
		"matched twice":        {[]*rbacv1.ClusterRole{role("whole", "", "x y"), role("a", "x y", "")}, []string{"a"}},
		"through another":      {[]*rbacv1.ClusterRole{role("whole", "", "x"), role("part", "x", "y"), role("z", "y", "")}, []string{"z"}},
		"itself":               {[]*rbacv1.ClusterRole{role("whole", "x", "x"), role("a", "x", "")}, []string{"a"}},
		"only itself":          {[]*rbacv1.ClusterRole{role("whole", "x", "x")}, nil},
		"each other":           {[]*rbacv1.ClusterRole{role("whole", "y", "x"), role("part", "x", "y"), role("a", "x", ""), role("b", "y", "")}, []string{"a", "b"}},
		"circle of three": {[]*rbacv1.ClusterRole{
			role("whole", "x", "y"), role("p", "y", "z"), role("q", "z", "x"), role("a", "z", ""),
		}, []string{"a"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := objects.AggregatedRules(test.roles[0], listOf(test.roles))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(rules(test.want...), got); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEqualRulesCountOnce(t *testing.T) {
	t.Parallel()
	a, b := role("a", "x", ""), role("b", "x", "")
	b.Rules = append(rules("b"), a.Rules...)
	b.Rules[1].ResourceNames = []string{} // equals nil
	whole := role("whole", "", "x")
	got, err := objects.AggregatedRules(whole, listOf([]*rbacv1.ClusterRole{a, b, whole}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rules("a", "b"), got); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

func TestMalformedSelectors(t *testing.T) {
	t.Parallel()
	broken := role("broken", "x", "y z")
	broken.AggregationRule.ClusterRoleSelectors[1] = metav1.LabelSelector{
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}},
	}
	list := listOf([]*rbacv1.ClusterRole{broken, role("whole", "", "x")})
	if _, err := objects.AggregatedRules(broken, list); err == nil || !strings.Contains(err.Error(), "clusterRoleSelectors[1]") {
		t.Errorf("got %v, want an error that names the selector", err)
	}
	got, err := objects.AggregatedRules(role("whole", "", "x"), list)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rules("broken"), got); diff != "" {
		t.Errorf("a role with malformed selectors gives the rules it has (-want +got):\n%s", diff)
	}
}

func TestUnionAndEqual(t *testing.T) {
	t.Parallel()
	if got := objects.UnionRules(rules("a", "b"), nil, rules("b", "c")); !objects.EqualRules(got, rules("a", "b", "c")) {
		t.Errorf("got %v", got)
	}
	if objects.EqualRules(rules("a", "b"), rules("b", "a")) || objects.EqualRules(rules("a"), nil) {
		t.Error("lists that differ are equal")
	}
	split := []rbacv1.PolicyRule{{Verbs: []string{"get", "list"}}, {Verbs: []string{"get list"}}, {Verbs: []string{"get"}, APIGroups: []string{"list"}}}
	if got := objects.UnionRules(split); len(got) != len(split) {
		t.Errorf("%d of %d different rules left", len(got), len(split))
	}
}

func BenchmarkAggregate1000Roles(b *testing.B) {
	b.ReportAllocs()
	roles := []*rbacv1.ClusterRole{role("whole", "", "x")}
	for i := range 1000 {
		roles = append(roles, role(fmt.Sprint("part-", i), "x", ""))
	}
	for b.Loop() {
		if _, err := objects.AggregatedRules(roles[0], listOf(roles)); err != nil {
			b.Fatal(err)
		}
	}
}

// TestDefaultRolesAreAggregated checks that the default roles have the rules that the controller would give them.
func TestDefaultRolesAreAggregated(t *testing.T) {
	t.Parallel()
	roles, aggregated := bootstrap.ClusterRoles(), 0
	for _, r := range roles {
		if r.AggregationRule == nil {
			continue
		}
		aggregated++
		got, err := objects.AggregatedRules(r, listOf(roles))
		if err != nil || !objects.EqualRules(got, r.Rules) {
			t.Errorf("%s: %v, rules (-default +aggregated):\n%s", r.Name, err, cmp.Diff(r.Rules, got))
		}
	}
	if aggregated == 0 {
		t.Error("no default role is aggregated")
	}
}
