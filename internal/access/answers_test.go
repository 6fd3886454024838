package access_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lanyard.dev/internal/access"
)

func TestWhoCan(t *testing.T) {
	t.Parallel()
	p := policyOf(t, shop)
	for _, test := range []struct {
		verb, resource, namespace string
		want, notes               []string
	}{
		{"get", "pods", "shop", []string{"Group//system:serviceaccounts", "ServiceAccount/shop/web"}, []string{"2 bindings refer to roles that do not exist"}},
		{"get", "pods", "other", nil, []string{"1 binding refers to a role that does not exist"}},
		{"get", "nodes", "shop", []string{"User//bob"}, nil},
		{"get", "/logs/kubelet", "", []string{"User//bob"}, nil},
		{"get", "secrets", "shop", nil, []string{"2 grants allow it for some names only; repeat the question with a name to see them"}},
		{"get", "secrets/mail", "shop", []string{"Group//system:serviceaccounts", "ServiceAccount/shop/web"}, nil},
	} {
		target, _, err := access.Builtin().Resolve(access.Spec{Verb: test.verb, Text: test.resource, Namespace: test.namespace})
		if err != nil {
			t.Fatal(err)
		}
		h := p.WhoCan(test.verb, target)
		var got []string
		for _, v := range h.Grants {
			got = append(got, v.Subject.Kind+"/"+v.Subject.Namespace+"/"+v.Subject.Name)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", test.verb, test.resource, diff)
		}
		for _, note := range append(test.notes, "the API server allows the group system:masters everything, whatever the policy contains") {
			if !slices.Contains(h.Notes, note) {
				t.Errorf("%s %s: notes %q lack %q", test.verb, test.resource, h.Notes, note)
			}
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	p := policyOf(t, shop+`
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: pods}
rules:
- {apiGroups: [""], resources: [pods], verbs: [list, get, odd]}
- {apiGroups: [""], resources: [pods], verbs: [delete, create]}
- {apiGroups: [""], resources: [services], verbs: [get, "*"]}
- {nonResourceURLs: [/version], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: pods}
roleRef: {kind: ClusterRole, name: pods}
subjects: [{kind: User, name: dora}, {kind: Group, name: "system:authenticated"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: pods, namespace: shop}
roleRef: {kind: ClusterRole, name: pods}
subjects: [{kind: User, name: dora}]
`)
	list := p.List(subject(t, "user:dora"), "")
	var got []string
	for _, item := range list.Permissions {
		got = append(got, fmt.Sprintf("%s|%s%s|%s|%d", item.Namespace, strings.Join(item.Resources, ","),
			strings.Join(item.NonResourceURLs, ","), strings.Join(item.Verbs, ","), len(item.Via)))
	}
	want := []string{
		"|pods|get,list,create,delete,odd|2", "|services|*|2", "|/version|get|2",
		"shop|pods|get,list,create,delete,odd|1", "shop|services|*|1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("permissions (-want +got):\n%s", diff)
	}
	if in := p.List(subject(t, "user:dora"), "shop"); len(in.Permissions) != len(want) || len(in.Notes) != 1 {
		t.Errorf("in shop: %+v", in)
	}
	if in := p.List(subject(t, "user:dora"), "lab"); len(in.Permissions) != 3 || in.Permissions[0].Namespace != "" || len(in.Notes) != 0 {
		t.Errorf("in lab: %+v", in)
	}
	if diff := cmp.Diff([]string{"RoleBinding/shop/lost refers to Role/shop/gone, which does not exist"}, list.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

// TestListKeepsHugeRulesWhole lists a rule of 10,000 resources in 10,000 groups, which has 100 million combinations.
func TestListKeepsHugeRulesWhole(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 10_000 {
		names = append(names, fmt.Sprint("n", i))
	}
	all := strings.Join(names, ",")
	p := policyOf(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: huge}
rules: [{apiGroups: [`+all+`], resources: [`+all+`], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: huge}
roleRef: {kind: ClusterRole, name: huge}
subjects: [{kind: User, name: ann}]
`)
	list := p.List(subject(t, "user:ann"), "")
	if len(list.Permissions) != 1 || len(list.Permissions[0].Resources) != len(names) {
		t.Errorf("%d permissions", len(list.Permissions))
	}
}

func TestParseSubject(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		user   string
		groups []string
	}{
		"sa:shop/web":                         {"system:serviceaccount:shop:web", []string{"system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"}},
		"shop/web":                            {"system:serviceaccount:shop:web", []string{"system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"}},
		"system:serviceaccount:shop:web":      {"system:serviceaccount:shop:web", []string{"system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"}},
		"user:ann":                            {"ann", []string{"system:authenticated"}},
		"user:system:serviceaccount:shop:web": {"system:serviceaccount:shop:web", []string{"system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"}},
		"user:system:anonymous":               {"system:anonymous", []string{"system:unauthenticated"}},
		"group:devs":                          {"", []string{"devs", "system:authenticated"}},
		"group:system:serviceaccounts:shop":   {"", []string{"system:serviceaccounts:shop", "system:serviceaccounts", "system:authenticated"}},
		"group:system:unauthenticated":        {"", []string{"system:unauthenticated"}},
		"node:worker-1":                       {"system:node:worker-1", []string{"system:nodes", "system:authenticated"}},
	}
	for text, want := range tests {
		got := subject(t, text)
		if diff := cmp.Diff(access.Subject{Text: text, User: want.user, Groups: want.groups}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	if got := subject(t, "user:ann", "devs", "devs"); !slices.Equal(got.Groups, []string{"devs", "system:authenticated"}) {
		t.Errorf("groups %q", got.Groups)
	}
	for _, text := range []string{"", "ann", "shop:web", "system:masters", "user", "sa:web", "sa:/web", "sa:shop/", "sa:a/b/c", "sa:a:b/c", "sa:shop:web", "sa:Shop/web", "shop/Web", "system:serviceaccount:shop", "system:serviceaccount:a:b:c", "user:", "group:", "node:", "robot:x"} {
		if s, err := access.ParseSubject(text); err == nil {
			t.Errorf("%q is %+v", text, s)
		}
	}
}
