package access_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/access"
	"lanyard.dev/internal/rbac"
)

// shop is a policy in which most denials have a near miss.
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
	c := access.Builtin()
	c.Learn(p)
	target, _, err := c.Resolve(access.Spec{Verb: verb, Text: resource, Namespace: namespace})
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
		"another namespace":     {web, "get", "pods", "other", []string{"namespace: granted in namespace shop, requested in other"}},
		"all namespaces":        {web, "get", "pods", "", []string{"namespace: granted in namespace shop, requested in all namespaces"}},
		"namespace and verb":    {web, "delete", "deployments", "other", []string{"verb,namespace: has get, not delete; granted in namespace shop, requested in other"}},
		"name and verb":         {web, "list", "configmaps", "shop", []string{"name,verb: has it only by name: settings; has get, not list"}},
		"three things":          {web, "list", "configmaps", "other", nil},
		"cluster scoped":        {"user:ann", "get", "nodes", "shop", []string{"namespace: granted in namespace shop, and nodes are in none"}},
		"path in a namespace":   {"user:ann", "get", "/metrics", "", []string{"namespace: granted in namespace shop, and a URL is in none"}},
		"path verb":             {"user:bob", "post", "/metrics", "", []string{"verb: has get, not post"}},
		"path below":            {"user:bob", "get", "/metrics/slis", "", []string{"resource: has /metrics, /logs/*, not /metrics/slis"}},
		"path above":            {"user:bob", "get", "/logs", "", []string{"resource: has /metrics, /logs/*, not /logs"}},
		"another path":          {"user:bob", "get", "/healthz", "", nil},
		"role missing":          {"user:carl", "get", "pods", "shop", []string{"role: bound to ClusterRole/gone, which does not exist"}},
		"role missing there":    {"user:dora", "get", "pods", "other", []string{"role,namespace: bound to Role/shop/gone, which does not exist; granted in namespace shop, requested in other"}},
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
	if !e.Allowed || !e.WithoutRBAC || len(e.Notes) != 1 || len(e.Grants)+len(e.Misses) > 0 {
		t.Errorf("explanation %+v", e)
	}
	if l := p.List(subject(t, "user:ann", access.Masters), ""); !l.WithoutRBAC || len(l.Notes) != 1 {
		t.Errorf("permissions %+v", l)
	}
}

// TestCreateByName checks which requests may create an object of a given name. A rule with resourceNames allows server-side
// apply but no POST.
func TestCreateByName(t *testing.T) {
	t.Parallel()
	p := policyOf(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: named}
rules:
- {apiGroups: [""], resources: [configmaps], resourceNames: [fresh], verbs: [create, patch]}
- {apiGroups: [""], resources: [secrets], resourceNames: [fresh], verbs: [create]}
- {apiGroups: [""], resources: [services], verbs: [create]}
- {apiGroups: [""], resources: [namespaces], resourceNames: [lab], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: named}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: named}
subjects: [{kind: User, name: ann}]
`)
	for resource, want := range map[string]struct{ named, post, patch bool }{
		"configmaps/fresh": {true, false, true},
		"configmaps/other": {false, false, false},
		"secrets/fresh":    {true, false, false},
		"services/fresh":   {true, true, false},
		"namespaces/lab":   {true, false, true},
	} {
		e := explain(t, p, "user:ann", "create", resource, "shop")
		if len(e.Ways) != 2 || e.Allowed != want.named || e.Ways[0].Allowed != want.post || e.Ways[1].Allowed != want.patch {
			t.Errorf("create %s: %v by %+v, want %+v", resource, e.Allowed, e.Ways, want)
		}
	}
	for _, resource := range []string{"configmaps", "pods/web/exec", "/metrics"} {
		if e := explain(t, p, "user:ann", "create", resource, "shop"); len(e.Ways) > 0 {
			t.Errorf("create %s: ways %+v", resource, e.Ways)
		}
	}
}

func TestSimilarSubjects(t *testing.T) {
	t.Parallel()
	p := policyOf(t, shop+`
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: developers}
roleRef: {kind: ClusterRole, name: everything-in-apps}
subjects: [{kind: Group, name: developers}]
`)
	for who, want := range map[string]string{
		"user:an": "no binding names the user an: did you mean ann?", "group:devlopers": "no binding names the group devlopers: did you mean developers?",
		"user:ann": "", "user:zachary": "", "sa:shop/wbe": "",
	} {
		e := explain(t, p, who, "delete", "pods", "shop")
		if got := strings.Join(e.Notes, "\n"); got != want {
			t.Errorf("%s: notes %q, want %q", who, got, want)
		}
	}
}

// TestUnreadRoles checks that a role that could not be read is not reported as missing.
func TestUnreadRoles(t *testing.T) {
	t.Parallel()
	x := rbac.NewIndex()
	x.SetRoleBinding(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "secret"},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}},
	})
	p := access.WithUnread(x, map[rbac.Ref]bool{{Kind: rbac.ClusterRole, Name: "secret"}: true})
	e := explain(t, p, "user:ann", "get", "pods", "shop")
	if len(e.Misses) != 1 || e.Misses[0].Text != "bound to ClusterRole/secret, which could not be read" {
		t.Errorf("misses %+v", e.Misses)
	}
	if notes := p.List(e.Subject, "").Notes; len(notes) != 1 || !strings.HasSuffix(notes[0], "which could not be read") {
		t.Errorf("notes of list %q", notes)
	}
	if notes := p.WhoCan("get", e.Target).Notes; !slices.Contains(notes, "1 binding refers to a role that could not be read") {
		t.Errorf("notes of who-can %q", notes)
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
	if len(e.Misses) != 50 || !slices.Contains(e.Notes, "30 more misses that are as close are not shown") {
		t.Errorf("%d misses, notes %q", len(e.Misses), e.Notes)
	}
}
