package rbacrules_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry/fieldtest"
	"lanyard.dev/internal/apiserver/registry/rbacrules"
)

const group = rbacv1.GroupName

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestValidateMeta(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		want []fieldtest.Fault
	}{
		{"system:node", nil},
		{"Admins of the shop", nil},
		{"", []fieldtest.Fault{fieldtest.Required("metadata.name", "")}},
		{"..", []fieldtest.Fault{fieldtest.Invalid("metadata.name", "may not be '..'")}},
		{"a/b", []fieldtest.Fault{fieldtest.Invalid("metadata.name", "may not contain '/'")}},
		{"a%b", []fieldtest.Fault{fieldtest.Invalid("metadata.name", "may not contain '%'")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			meta := &metav1.ObjectMeta{Name: test.name}
			fieldtest.Check(t, rbacrules.ValidateMeta(meta, rbacrules.Cluster), test.want...)
		})
	}
	homeless := &metav1.ObjectMeta{Name: "a"}
	fieldtest.Check(t, rbacrules.ValidateMeta(homeless, rbacrules.Namespaced), fieldtest.Required("metadata.namespace", ""))
}

func TestValidateRules(t *testing.T) {
	t.Parallel()
	get := []string{"get"}
	for _, test := range []struct {
		name  string
		rule  rbacv1.PolicyRule
		scope rbacrules.Scope
		want  []fieldtest.Fault
	}{
		{"resource", rbacv1.PolicyRule{Verbs: get, APIGroups: []string{""}, Resources: []string{"pods"}}, rbacrules.Namespaced, nil},
		{"names of several resources", rbacv1.PolicyRule{Verbs: get, APIGroups: []string{""}, Resources: []string{"pods", "secrets"}, ResourceNames: []string{"a"}},
			rbacrules.Namespaced, nil},
		{"url", rbacv1.PolicyRule{Verbs: get, NonResourceURLs: []string{"/metrics"}}, rbacrules.Cluster, nil},
		{"empty", rbacv1.PolicyRule{}, rbacrules.Cluster, []fieldtest.Fault{
			fieldtest.Required("rules[0].verbs", "verbs must contain at least one value"),
			fieldtest.Required("rules[0].apiGroups", "resource rules must supply at least one api group"),
			fieldtest.Required("rules[0].resources", "resource rules must supply at least one resource"),
		}},
		{"url in role", rbacv1.PolicyRule{Verbs: get, NonResourceURLs: []string{"/metrics"}}, rbacrules.Namespaced,
			[]fieldtest.Fault{fieldtest.Invalid("rules[0].nonResourceURLs", "namespaced rules cannot apply to non-resource URLs")}},
		{"url and resource", rbacv1.PolicyRule{Verbs: get, NonResourceURLs: []string{"/metrics"}, ResourceNames: []string{"a"}}, rbacrules.Cluster,
			[]fieldtest.Fault{fieldtest.Invalid("rules[0].nonResourceURLs", `["/metrics"]: rules cannot apply to both regular resources and non-resource URLs`)}},
		{"url without verb", rbacv1.PolicyRule{NonResourceURLs: []string{"/metrics"}}, rbacrules.Cluster,
			[]fieldtest.Fault{fieldtest.Required("rules[0].verbs", "verbs must contain at least one value")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fieldtest.Check(t, rbacrules.ValidateRules([]rbacv1.PolicyRule{test.rule}, test.scope), test.want...)
		})
	}
}

func TestValidateRoleRef(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		ref  rbacv1.RoleRef
		want []fieldtest.Fault
	}{
		{"valid", rbacv1.RoleRef{APIGroup: group, Kind: "ClusterRole", Name: "system:x"}, nil},
		{"kind", rbacv1.RoleRef{APIGroup: group, Kind: "Role", Name: "x"},
			[]fieldtest.Fault{fieldtest.NotSupported("roleRef.kind", `supported values: "ClusterRole"`)}},
		{"group", rbacv1.RoleRef{APIGroup: "apps", Kind: "ClusterRole", Name: "x"},
			[]fieldtest.Fault{fieldtest.NotSupported("roleRef.apiGroup", `supported values: "rbac.authorization.k8s.io"`)}},
		{"name", rbacv1.RoleRef{APIGroup: group, Kind: "ClusterRole", Name: "a/b"},
			[]fieldtest.Fault{fieldtest.Invalid("roleRef.name", "may not contain '/'")}},
		{"empty", rbacv1.RoleRef{}, []fieldtest.Fault{
			fieldtest.NotSupported("roleRef.apiGroup", ""), fieldtest.NotSupported("roleRef.kind", ""), fieldtest.Required("roleRef.name", ""),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fieldtest.Check(t, rbacrules.ValidateRoleRef(test.ref, "ClusterRole"), test.want...)
		})
	}
}

func TestValidateSubjects(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		subject rbacv1.Subject
		scope   rbacrules.Scope
		want    []fieldtest.Fault
	}{
		{"account", rbacv1.Subject{Kind: "ServiceAccount", Name: "bot", Namespace: "ci"}, rbacrules.Cluster, nil},
		{"account at home", rbacv1.Subject{Kind: "ServiceAccount", Name: "bot"}, rbacrules.Namespaced, nil},
		{"user", rbacv1.Subject{Kind: "User", APIGroup: group, Name: "Jane Doe/é"}, rbacrules.Cluster, nil},
		{"group", rbacv1.Subject{Kind: "Group", APIGroup: group, Name: "system:masters"}, rbacrules.Cluster, nil},
		{"account nowhere", rbacv1.Subject{Kind: "ServiceAccount", Name: "bot"}, rbacrules.Cluster,
			[]fieldtest.Fault{fieldtest.Required("subjects[0].namespace", "")}},
		{"account name", rbacv1.Subject{Kind: "ServiceAccount", Name: "Bot"}, rbacrules.Namespaced,
			[]fieldtest.Fault{fieldtest.Invalid("subjects[0].name", "RFC 1123 subdomain")}},
		{"account group", rbacv1.Subject{Kind: "ServiceAccount", Name: "bot", APIGroup: group}, rbacrules.Namespaced,
			[]fieldtest.Fault{fieldtest.NotSupported("subjects[0].apiGroup", `supported values: ""`)}},
		{"user group", rbacv1.Subject{Kind: "User", Name: "jane", APIGroup: "v1"}, rbacrules.Cluster,
			[]fieldtest.Fault{fieldtest.NotSupported("subjects[0].apiGroup", `supported values: "rbac.authorization.k8s.io"`)}},
		{"group without name", rbacv1.Subject{Kind: "Group", APIGroup: group}, rbacrules.Cluster,
			[]fieldtest.Fault{fieldtest.Required("subjects[0].name", "")}},
		{"kind", rbacv1.Subject{Kind: "Robot", Name: "r"}, rbacrules.Cluster,
			[]fieldtest.Fault{fieldtest.NotSupported("subjects[0].kind", `"Robot": supported values:`)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fieldtest.Check(t, rbacrules.ValidateSubjects([]rbacv1.Subject{test.subject}, test.scope), test.want...)
		})
	}
}

func TestSetBindingDefaults(t *testing.T) {
	t.Parallel()
	ref := rbacv1.RoleRef{Kind: "Role", Name: "r"}
	subjects := []rbacv1.Subject{{Kind: "User"}, {Kind: "Group"}, {Kind: "ServiceAccount"}, {Kind: "User", APIGroup: "own"}, {Kind: "Robot"}}
	rbacrules.SetBindingDefaults(&ref, subjects)
	if ref.APIGroup != group {
		t.Errorf("roleRef.apiGroup = %q", ref.APIGroup)
	}
	var got []string
	for _, s := range subjects {
		got = append(got, s.APIGroup)
	}
	if diff := cmp.Diff([]string{group, group, "", "own", ""}, got); diff != "" {
		t.Errorf("subjects' groups (-want +got):\n%s", diff)
	}
	rbacrules.SetBindingDefaults(&rbacv1.RoleRef{}, nil)
}

func TestRows(t *testing.T) {
	t.Parallel()
	meta := &metav1.ObjectMeta{Name: "b", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour).In(time.FixedZone("", 7200)))}
	if diff := cmp.Diff([]any{"b", "2026-05-01T11:00:00Z"}, rbacrules.RoleRow(meta)); diff != "" {
		t.Errorf("role (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{"b", "<unknown>"}, rbacrules.RoleRow(&metav1.ObjectMeta{Name: "b"})); diff != "" {
		t.Errorf("role without time (-want +got):\n%s", diff)
	}
	subjects := []rbacv1.Subject{
		{Kind: "User", Name: "jane"}, {Kind: "Group", Name: "ops"}, {Kind: "User", Name: "joe"},
		{Kind: "ServiceAccount", Namespace: "ci", Name: "bot"}, {Kind: "Robot", Name: "r"},
	}
	row := rbacrules.BindingRow(meta, rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}, subjects, now)
	if diff := cmp.Diff([]any{"b", "ClusterRole/view", "60m", "jane, joe", "ops", "ci/bot"}, row); diff != "" {
		t.Errorf("binding (-want +got):\n%s", diff)
	}
	if got, want := len(row), len(rbacrules.BindingColumns("x")); got != want {
		t.Errorf("%d cells for %d columns", got, want)
	}
	if got, want := len(rbacrules.RoleRow(meta)), len(rbacrules.RoleColumns("x")); got != want {
		t.Errorf("%d cells for %d columns", got, want)
	}
}

func TestValidateSize(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		size int
		want []fieldtest.Fault
	}{
		{rbacrules.MaxSize - 100, nil},
		{rbacrules.MaxSize, []fieldtest.Fault{fieldtest.TooLong("", "may not be more than 1441792 bytes")}},
	} {
		long := strings.Repeat("x", test.size)
		at := func(path string) []fieldtest.Fault {
			faults := slices.Clone(test.want)
			for i := range faults {
				faults[i].Field = path
			}
			return faults
		}
		rules := []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{long}}}
		fieldtest.Check(t, rbacrules.ValidateRules(rules, rbacrules.Cluster), at("rules")...)
		subjects := []rbacv1.Subject{{Kind: "User", APIGroup: group, Name: long}}
		fieldtest.Check(t, rbacrules.ValidateSubjects(subjects, rbacrules.Cluster), at("subjects")...)
	}
}
