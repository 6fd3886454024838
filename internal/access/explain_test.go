package access_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lanyard.dev/internal/access"
)

// shop is a policy in which most denials have something near.
const shop = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: shop}
rules:
- {apiGroups: [""], resources: [pods, pods/log], verbs: [get, watch]}
- {apiGroups: [""], resources: [secrets], resourceNames: [db, mail], verbs: [get]}
- {apiGroups: [apps], resources: [deployments], verbs: [get]}
- {apiGroups: [""], resources: [configmaps], resourceNames: [settings], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: metrics}
rules:
- {nonResourceURLs: [/metrics, /logs/*], verbs: [get]}
- {apiGroups: [""], resources: [nodes], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: everything-in-apps}
rules:
- {apiGroups: [apps], resources: ["*"], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: readers, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: web}, {kind: ServiceAccount, name: web, namespace: shop}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: readers-too, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: Group, name: system:serviceaccounts, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: metrics, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: metrics}
subjects: [{kind: User, name: ann}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: metrics}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: metrics}
subjects: [{kind: User, name: bob}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lost}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: gone}
subjects: [{kind: User, name: carl}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lost, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: gone}
subjects: [{kind: User, name: dora}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: apps}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: everything-in-apps}
subjects: [{kind: User, name: eve}]
`

func explain(t *testing.T, p *access.Policy, who, verb, resource, namespace string) access.Explanation {
	t.Helper()
	target, _, err := access.Builtin().Resolve(access.Spec{Verb: verb, Text: resource, Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	return p.Explain(access.Question{Subject: subject(t, who), Verb: verb, Target: target})
}

func TestExplainMisses(t *testing.T) {
	t.Parallel()
	p := policyOf(t, shop)
	web := "sa:shop/web"
	tests := map[string]struct {
		who, verb, resource, namespace string
		want                           []string
	}{
		"verb":                  {"sa:shop/web", "list", "pods", "shop", []string{"verb: has get, watch, not list"}},
		"subresource":           {web, "get", "pods/status", "shop", []string{"resource: has pods, pods/log, not pods/status"}},
		"another group":         {web, "get", "deployments.extensions", "shop", []string{"apiGroup: has deployments of API group apps, not extensions"}},
		"all in another group":  {"user:eve", "get", "jobs", "shop", nil},
		"another name":          {web, "get", "secrets/key", "shop", []string{"name: has it for db, mail, not key"}},
		"no name":               {web, "get", "secrets", "shop", []string{"name: has it only by name: db, mail"}},
		"another namespace":     {web, "get", "pods", "other", []string{"namespace: granted in namespace shop, asked in other"}},
		"all namespaces":        {web, "get", "pods", "", []string{"namespace: granted in namespace shop, asked in all"}},
		"namespace and verb":    {web, "delete", "deployments", "other", []string{"verb,namespace: has get, not delete; granted in namespace shop, asked in other"}},
		"name and verb":         {web, "list", "configmaps", "shop", []string{"name,verb: has it only by name: settings; has get, not list"}},
		"three things":          {web, "list", "configmaps", "other", nil},
		"cluster scoped":        {"user:ann", "get", "nodes", "shop", []string{"namespace: granted in namespace shop, and nodes are in none"}},
		"path in a namespace":   {"user:ann", "get", "/metrics", "", []string{"namespace: granted in namespace shop, and a URL is in none"}},
		"path verb":             {"user:bob", "post", "/metrics", "", []string{"verb: has get, not post"}},
		"path below":            {"user:bob", "get", "/metrics/slis", "", []string{"resource: has /metrics, /logs/*, not /metrics/slis"}},
		"path above":            {"user:bob", "get", "/logs", "", []string{"resource: has /metrics, /logs/*, not /logs"}},
		"another path":          {"user:bob", "get", "/healthz", "", nil},
		"role missing":          {"user:carl", "get", "pods", "shop", []string{"role: bound to ClusterRole/gone, which does not exist"}},
		"role missing there":    {"user:dora", "get", "pods", "other", []string{"role,namespace: bound to Role/shop/gone, which does not exist; granted in namespace shop, asked in other"}},
		"nothing to do with it": {web, "get", "services", "shop", nil},
		"nobody":                {"user:zoe", "get", "pods", "shop", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := explain(t, p, test.who, test.verb, test.resource, test.namespace)
			if e.Allowed || len(e.Grants) > 0 {
				t.Fatalf("allowed by %v", e.Grants)
			}
			var got []string
			for _, m := range e.Misses {
				if text := strings.Join(m.Lacks, ",") + ": " + m.Text; !slices.Contains(got, text) {
					got = append(got, text)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("misses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExplainNamesEveryGrant(t *testing.T) {
	t.Parallel()
	e := explain(t, policyOf(t, shop), "sa:shop/web", "get", "pods/log", "shop")
	var got []string
	for _, v := range e.Grants {
		got = append(got, fmt.Sprintf("%s %s to %s %s: %d rules", v.Binding, v.Role, v.Subject.Kind, v.Subject.Name, len(v.Rules)))
	}
	want := []string{
		"RoleBinding/shop/readers Role/shop/reader to ServiceAccount web: 1 rules",
		"RoleBinding/shop/readers-too Role/shop/reader to Group system:serviceaccounts: 1 rules",
	}
	if diff := cmp.Diff(want, got); diff != "" || !e.Allowed {
		t.Errorf("allowed=%v, grants (-want +got):\n%s", e.Allowed, diff)
	}
}

func TestMastersAreNotAskedAbout(t *testing.T) {
	t.Parallel()
	p := policyOf(t, shop)
	e := explain(t, p, "group:system:masters", "delete", "nodes", "")
	if !e.Allowed || !e.Unasked || len(e.Notes) != 1 || len(e.Grants)+len(e.Misses) > 0 {
		t.Errorf("explanation %+v", e)
	}
	if l := p.List(subject(t, "user:ann", access.Masters)); !l.Unasked || len(l.Notes) != 1 {
		t.Errorf("permissions %+v", l)
	}
}

func TestUnknownGroup(t *testing.T) {
	t.Parallel()
	p := policyOf(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: widgets}
rules:
- {apiGroups: [example.com, example.org], resources: [widgets], verbs: [get]}
- {apiGroups: ["*"], resources: [gadgets], verbs: [get]}
- {apiGroups: [example.com], resources: ["*"], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: widgets}
roleRef: {kind: ClusterRole, name: widgets}
subjects: [{kind: User, name: ann}]
`)
	for _, test := range []struct {
		verb, resource string
		want           bool
		note           string
	}{
		{"get", "widgets", true, "here for example.com, example.org"},
		{"list", "widgets", true, "any rule that names it counts"},
		{"get", "widgets.example.net", false, ""},
		{"get", "gadgets", true, "no rule names it"},
		{"list", "things", false, "no rule names it"},
		{"get", "things", false, "no rule names it"},
	} {
		e := explain(t, p, "user:ann", test.verb, test.resource, "shop")
		if e.Allowed != test.want || e.Allowed != (len(e.Grants) > 0) || !strings.Contains(strings.Join(e.Notes, "\n"), test.note) {
			t.Errorf("%s %s: allowed=%v with notes %q, want %v with %q", test.verb, test.resource, e.Allowed, e.Notes, test.want, test.note)
		}
	}
}

func TestManyMissesAreCut(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 80 {
		fmt.Fprintf(&text, `---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lost-%d}
roleRef: {kind: ClusterRole, name: gone}
subjects: [{kind: User, name: ann}]
`, i)
	}
	e := explain(t, policyOf(t, text.String()), "user:ann", "get", "pods", "")
	if len(e.Misses) != 50 || !slices.Contains(e.Notes, "30 more misses as near are not shown") {
		t.Errorf("%d misses, notes %q", len(e.Misses), e.Notes)
	}
}
