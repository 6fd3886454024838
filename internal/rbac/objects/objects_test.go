package objects

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/apiserver/registry/fieldtest"
)

const group = rbacv1.GroupName

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
			fieldtest.Check(t, validateMeta(meta, cluster), test.want...)
		})
	}
	homeless := &metav1.ObjectMeta{Name: "a"}
	fieldtest.Check(t, validateMeta(homeless, namespaced), fieldtest.Required("metadata.namespace", ""))
}

func TestValidateRules(t *testing.T) {
	t.Parallel()
	get := []string{"get"}
	for _, test := range []struct {
		name  string
		rule  rbacv1.PolicyRule
		scope scope
		want  []fieldtest.Fault
	}{
		{"resource", rbacv1.PolicyRule{Verbs: get, APIGroups: []string{""}, Resources: []string{"pods"}}, namespaced, nil},
		{"names of several resources", rbacv1.PolicyRule{Verbs: get, APIGroups: []string{""}, Resources: []string{"pods", "secrets"}, ResourceNames: []string{"a"}},
			namespaced, nil},
		{"url", rbacv1.PolicyRule{Verbs: get, NonResourceURLs: []string{"/metrics"}}, cluster, nil},
		{"empty", rbacv1.PolicyRule{}, cluster, []fieldtest.Fault{
			fieldtest.Required("rules[0].verbs", "verbs must contain at least one value"),
			fieldtest.Required("rules[0].apiGroups", "resource rules must supply at least one api group"),
			fieldtest.Required("rules[0].resources", "resource rules must supply at least one resource"),
		}},
		{"url in role", rbacv1.PolicyRule{Verbs: get, NonResourceURLs: []string{"/metrics"}}, namespaced,
			[]fieldtest.Fault{fieldtest.Invalid("rules[0].nonResourceURLs", "namespaced rules cannot apply to non-resource URLs")}},
		{"url and resource", rbacv1.PolicyRule{Verbs: get, NonResourceURLs: []string{"/metrics"}, ResourceNames: []string{"a"}}, cluster,
			[]fieldtest.Fault{fieldtest.Invalid("rules[0].nonResourceURLs", `["/metrics"]: rules cannot apply to both regular resources and non-resource URLs`)}},
		{"url without verb", rbacv1.PolicyRule{NonResourceURLs: []string{"/metrics"}}, cluster,
			[]fieldtest.Fault{fieldtest.Required("rules[0].verbs", "verbs must contain at least one value")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fieldtest.Check(t, validateRules([]rbacv1.PolicyRule{test.rule}, test.scope), test.want...)
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
			fieldtest.Check(t, validateRoleRef(test.ref, "ClusterRole"), test.want...)
		})
	}
}

func TestValidateSubjects(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		subject rbacv1.Subject
		scope   scope
		want    []fieldtest.Fault
	}{
		{"account", rbacv1.Subject{Kind: "ServiceAccount", Name: "bot", Namespace: "ci"}, cluster, nil},
		{"account at home", rbacv1.Subject{Kind: "ServiceAccount", Name: "bot"}, namespaced, nil},
		{"user", rbacv1.Subject{Kind: "User", APIGroup: group, Name: "Jane Doe/é"}, cluster, nil},
		{"group", rbacv1.Subject{Kind: "Group", APIGroup: group, Name: "system:masters"}, cluster, nil},
		{"account nowhere", rbacv1.Subject{Kind: "ServiceAccount", Name: "bot"}, cluster,
			[]fieldtest.Fault{fieldtest.Required("subjects[0].namespace", "")}},
		{"account name", rbacv1.Subject{Kind: "ServiceAccount", Name: "Bot"}, namespaced,
			[]fieldtest.Fault{fieldtest.Invalid("subjects[0].name", "RFC 1123 subdomain")}},
		{"account group", rbacv1.Subject{Kind: "ServiceAccount", Name: "bot", APIGroup: group}, namespaced,
			[]fieldtest.Fault{fieldtest.NotSupported("subjects[0].apiGroup", `supported values: ""`)}},
		{"user group", rbacv1.Subject{Kind: "User", Name: "jane", APIGroup: "v1"}, cluster,
			[]fieldtest.Fault{fieldtest.NotSupported("subjects[0].apiGroup", `supported values: "rbac.authorization.k8s.io"`)}},
		{"group without name", rbacv1.Subject{Kind: "Group", APIGroup: group}, cluster,
			[]fieldtest.Fault{fieldtest.Required("subjects[0].name", "")}},
		{"kind", rbacv1.Subject{Kind: "Robot", Name: "r"}, cluster,
			[]fieldtest.Fault{fieldtest.NotSupported("subjects[0].kind", `"Robot": supported values:`)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fieldtest.Check(t, validateSubjects([]rbacv1.Subject{test.subject}, test.scope), test.want...)
		})
	}
}

func TestSetBindingDefaults(t *testing.T) {
	t.Parallel()
	ref := rbacv1.RoleRef{Kind: "Role", Name: "r"}
	subjects := []rbacv1.Subject{{Kind: "User"}, {Kind: "Group"}, {Kind: "ServiceAccount"}, {Kind: "User", APIGroup: "own"}, {Kind: "Robot"}}
	setBindingDefaults(&ref, subjects)
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
	setBindingDefaults(&rbacv1.RoleRef{}, nil)
}

func TestValidateSize(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		size int
		want []fieldtest.Fault
	}{
		{maxSize - 100, nil},
		{maxSize, []fieldtest.Fault{fieldtest.TooLong("", "may not be more than 1441792 bytes")}},
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
		fieldtest.Check(t, validateRules(rules, cluster), at("rules")...)
		subjects := []rbacv1.Subject{{Kind: "User", APIGroup: group, Name: long}}
		fieldtest.Check(t, validateSubjects(subjects, cluster), at("subjects")...)
	}
}
