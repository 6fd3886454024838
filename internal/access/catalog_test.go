package access_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/access"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/rbac/bootstrap"
)

func TestResolveOffline(t *testing.T) {
	t.Parallel()
	empty := ""
	log := "log"
	pods := access.Target{Resource: "pods", Namespace: "shop"}
	with := func(change func(*access.Target)) access.Target {
		t := pods
		change(&t)
		return t
	}
	for _, test := range []struct {
		spec access.Spec
		want access.Target
	}{
		{access.Spec{Text: "pods"}, pods},
		{access.Spec{Text: "po"}, pods},
		{access.Spec{Text: "Pod"}, pods},
		{access.Spec{Text: "pods."}, pods},
		{access.Spec{Text: "pods.v1"}, pods},
		{access.Spec{Text: "pods/web"}, with(func(t *access.Target) { t.Name = "web" })},
		{access.Spec{Text: "pods/log"}, with(func(t *access.Target) { t.Subresource = "log" })},
		{access.Spec{Text: "pods/log", Subresource: &empty}, with(func(t *access.Target) { t.Name = "log" })},
		{access.Spec{Text: "pods/web", Subresource: &log}, with(func(t *access.Target) { t.Name, t.Subresource = "web", "log" })},
		{access.Spec{Text: "pods/web/log"}, with(func(t *access.Target) { t.Name, t.Subresource = "web", "log" })},
		{access.Spec{Text: "pods/log/web"}, with(func(t *access.Target) { t.Name, t.Subresource = "web", "log" })},
		{access.Spec{Text: "deploy"}, access.Target{APIGroup: "apps", Resource: "deployments", Namespace: "shop"}},
		{access.Spec{Text: "deployment.v1.apps/scale"}, access.Target{APIGroup: "apps", Resource: "deployments", Subresource: "scale", Namespace: "shop"}},
		{access.Spec{Text: "deployments.extensions"}, access.Target{APIGroup: "extensions", Resource: "deployments", Namespace: "shop"}},
		{access.Spec{Text: "nodes"}, access.Target{Resource: "nodes", ClusterScoped: true}},
		{access.Spec{Text: "ns/lab"}, access.Target{Resource: "namespaces", Name: "lab", Namespace: "lab"}},
		{access.Spec{Text: "widgets.example.com/w1"}, access.Target{Resource: "widgets", APIGroup: "example.com", Name: "w1", Namespace: "shop"}},
		{access.Spec{Text: "widgets.example.com/status"}, access.Target{Resource: "widgets", APIGroup: "example.com", Subresource: "status", Namespace: "shop"}},
		{access.Spec{Text: "widgets./finalizers"}, access.Target{Resource: "widgets", Subresource: "finalizers", Namespace: "shop"}},
		{access.Spec{Text: "secrets/finalizers"}, access.Target{Resource: "secrets", Subresource: "finalizers", Namespace: "shop"}},
		{access.Spec{Text: "secrets/status"}, access.Target{Resource: "secrets", Name: "status", Namespace: "shop"}},
		{access.Spec{Text: "pods/log", Name: "web"}, with(func(t *access.Target) { t.Name, t.Subresource = "web", "log" })},
		{access.Spec{Text: "pods", Name: "log"}, with(func(t *access.Target) { t.Name = "log" })},
		{access.Spec{Text: "nodes/metrics"}, access.Target{Resource: "nodes", Subresource: "metrics", ClusterScoped: true}},
		{access.Spec{Text: "nodes", Name: "metrics"}, access.Target{Resource: "nodes", Name: "metrics", ClusterScoped: true}},
		{access.Spec{Text: "events"}, access.Target{Resource: "events", Namespace: "shop"}},
		{access.Spec{Text: "events.events.k8s.io"}, access.Target{Resource: "events", APIGroup: "events.k8s.io", Namespace: "shop"}},
		{access.Spec{Verb: "impersonate", Text: "userextras/scopes"}, access.Target{Resource: "userextras", APIGroup: "authentication.k8s.io", Subresource: "scopes", ClusterScoped: true}},
		{access.Spec{Verb: "impersonate", Text: "userextras/scopes/status"},
			access.Target{Resource: "userextras", APIGroup: "authentication.k8s.io", Subresource: "scopes", Name: "status", ClusterScoped: true}},
		{access.Spec{Verb: "impersonate", Text: "users/ann"}, access.Target{Resource: "users", Name: "ann", ClusterScoped: true}},
		{access.Spec{Verb: "impersonate:user-info", Text: "users/ann"}, access.Target{Resource: "users", APIGroup: "authentication.k8s.io", Name: "ann", ClusterScoped: true}},
		{access.Spec{Text: "widgets.v1beta1.example.com"}, access.Target{Resource: "widgets", APIGroup: "example.com", Namespace: "shop"}},
		{access.Spec{Text: "*"}, access.Target{Resource: "*", APIGroup: "*", Namespace: "shop"}},
		{access.Spec{Text: "*.apps"}, access.Target{Resource: "*", APIGroup: "apps", Namespace: "shop"}},
		{access.Spec{Text: "/metrics"}, access.Target{Path: "/metrics"}},
		{access.Spec{Text: "*/scale"}, access.Target{Resource: "*", APIGroup: "*", Subresource: "scale", Namespace: "shop"}},
		{access.Spec{Verb: "create", Text: "pods/web"}, with(func(t *access.Target) { t.Name = "web" })},
		{access.Spec{Verb: "create", Text: "pods/web/exec"}, with(func(t *access.Target) { t.Name, t.Subresource = "web", "exec" })},
	} {
		test.spec.Namespace = "shop"
		got, _, err := access.Builtin().Resolve(test.spec)
		if err != nil {
			t.Errorf("%s: %v", test.spec.Text, err)
		}
		if diff := cmp.Diff(test.want, got, unversioned); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test.spec, diff)
		}
	}
	for _, text := range []string{"", "pods/", "pods//log", "a/b/c/d", "widgets", "widgets/status"} {
		if got, _, err := access.Builtin().Resolve(access.Spec{Text: text}); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
	if _, _, err := access.Builtin().Resolve(access.Spec{Text: "pods/a/b", Subresource: &log}); err == nil {
		t.Error("two subresources are taken")
	}
	for _, spec := range []access.Spec{{Text: "pods/a/b", Name: "c"}, {Text: "/metrics", Name: "c"}, {Text: "/metrics", Subresource: &log}, {Text: "pods/a", Name: "c", Subresource: &log}} {
		if got, _, err := access.Builtin().Resolve(spec); err == nil {
			t.Errorf("%+v is %+v", spec, got)
		}
	}
}

// unversioned compares targets without the version that the API server prefers.
var unversioned = cmpopts.IgnoreUnexported(access.Target{})

// discovery returns documents with widgets in two groups. The order of the lists has no meaning.
func discovery() ([]*metav1.APIGroup, []*metav1.APIResourceList) {
	group := func(name string, versions ...string) *metav1.APIGroup {
		g := &metav1.APIGroup{Name: name}
		for _, v := range versions {
			g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + v, Version: v})
		}
		return g
	}
	groups := []*metav1.APIGroup{
		group("zoo.example", "v1"), group("example.com", "v2", "v1"), group("events.k8s.io", "v1"),
		{Versions: []metav1.GroupVersionForDiscovery{{GroupVersion: "v1", Version: "v1"}}},
	}
	lists := []*metav1.APIResourceList{
		{GroupVersion: "events.k8s.io/v1", APIResources: []metav1.APIResource{{Name: "events", Kind: "Event", Namespaced: true}}},
		{GroupVersion: "example.com/v1", APIResources: []metav1.APIResource{{Name: "widgets", Kind: "Widget", Namespaced: true}, {Name: "widgets/old", Namespaced: true}}},
		{GroupVersion: "example.com/v2", APIResources: []metav1.APIResource{{Name: "widgets/mend"}, {Name: "widgets", Kind: "Widget", ShortNames: []string{"wd"}}}},
		{GroupVersion: "late.example/v1", APIResources: []metav1.APIResource{{Name: "widgets", Kind: "Widget"}}},
		{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "pods", SingularName: "pod", Kind: "Pod", ShortNames: []string{"po"}, Namespaced: true},
			{Name: "pods/mend", Kind: "Pod", Namespaced: true},
			{Name: "events", SingularName: "event", Kind: "Event", Namespaced: true},
		}},
		{GroupVersion: "zoo.example/v1", APIResources: []metav1.APIResource{{Name: "widgets", Kind: "Widget", Namespaced: true}, {Name: "wd", Kind: "Wd", Namespaced: true}}},
		{GroupVersion: "a/b/c"},
	}
	return groups, lists
}

func TestResolveByDiscovery(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		want access.Target
		note string
	}{
		{"wd", access.Target{APIGroup: "zoo.example", Resource: "wd", Namespace: "shop"}, "also widgets.example.com"}, // a name before short names
		{"widget/one", access.Target{APIGroup: "zoo.example", Resource: "widgets", Name: "one", Namespace: "shop"}, "also widgets.example.com, widgets.late.example"},
		{"widgets.example.com/one", access.Target{APIGroup: "example.com", Resource: "widgets", Name: "one", ClusterScoped: true}, ""},
		{"widgets.example.com/old", access.Target{APIGroup: "example.com", Resource: "widgets", Subresource: "old", ClusterScoped: true}, "old is read as a subresource"},
		{"widgets.example.com/mend", access.Target{APIGroup: "example.com", Resource: "widgets", Subresource: "mend", ClusterScoped: true}, "mend is read as a subresource"},
		{"widgets.example.com/status", access.Target{APIGroup: "example.com", Resource: "widgets", Name: "status", ClusterScoped: true}, ""}, // it has none
		{"events", access.Target{Resource: "events", Namespace: "shop"}, "also events.events.k8s.io"},
		{"pods/mend", access.Target{Resource: "pods", Subresource: "mend", Namespace: "shop"}, "mend is read as a subresource"},
		{"pods/log", access.Target{Resource: "pods", Subresource: "log", Namespace: "shop"}, "log is read as a subresource"}, // known, if not served
		{"pods/logs", access.Target{Resource: "pods", Name: "logs", Namespace: "shop"}, "did you mean pods/log?"},
		{"deploy", access.Target{APIGroup: "apps", Resource: "deployments", Namespace: "shop"}, "does not serve deployments in API group apps"},
		{"*", access.Target{APIGroup: "*", Resource: "*", Namespace: "shop"}, ""},
		{"gadgets.example.com", access.Target{APIGroup: "example.com", Resource: "gadgets", Namespace: "shop"}, "gadgets is not known to exist in API group example.com"},
		{"widgest.example.com", access.Target{APIGroup: "example.com", Resource: "widgest", Namespace: "shop"}, "did you mean widgets.example.com?"},
	} {
		for range 3 {
			got, notes, err := access.NewCatalog(discovery()).Resolve(access.Spec{Verb: "get", Text: test.text, Namespace: "shop"})
			if err != nil {
				t.Errorf("%s: %v", test.text, err)
			}
			if diff := cmp.Diff(test.want, got, unversioned); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.text, diff)
			}
			if all := strings.Join(notes, "\n"); !strings.Contains(all, test.note) || (test.note == "") != (all == "") {
				t.Errorf("%s: notes %q", test.text, notes)
			}
		}
	}
}

// TestDiscoveryOrderIsTheGroups shuffles the lists. client-go returns them in the order of a map.
func TestDiscoveryOrderIsTheGroups(t *testing.T) {
	t.Parallel()
	groups, lists := discovery()
	for seed := range uint64(50) {
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(lists), func(i, j int) { lists[i], lists[j] = lists[j], lists[i] })
		c := access.NewCatalog(groups, lists)
		for text, want := range map[string]string{"events": "", "widgets": "zoo.example", "widgets.example.com": "example.com"} {
			got, _, err := c.Resolve(access.Spec{Verb: "create", Text: text})
			if err != nil || got.APIGroup != want || got.ClusterScoped != (text == "widgets.example.com") {
				t.Fatalf("seed %d: %s is %+v, %v; want group %q", seed, text, got, err, want)
			}
		}
	}
}

// TestResolveLearnsFromRules resolves resources that only the rules of the policy name.
func TestResolveLearnsFromRules(t *testing.T) {
	t.Parallel()
	p := policyOf(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: unbound}
rules:
- {apiGroups: [b.example, a.example], resources: [widgets, widgets/frob], verbs: [get, burnish]}
- {apiGroups: [""], resources: [pods/frob], verbs: [get]}
- {apiGroups: [apps], resources: ["*/rub"], verbs: [get]}
- {apiGroups: ["*"], resources: [gadgets, secrets/polish], verbs: [get]}
- {apiGroups: [""], resources: [deploy], verbs: [get]}
`)
	for _, test := range []struct {
		verb, text, want string
		note             string
	}{
		{"get", "widgets/frob", `verb="get" group="a.example" resource="widgets" subresource="frob" name="" namespace="shop"`, "also widgets.b.example"},
		{"get", "widgets.b.example/one", `verb="get" group="b.example" resource="widgets" subresource="" name="one" namespace="shop"`, "only rules name widgets"},
		{"get", "widgets/scale", `verb="get" group="a.example" resource="widgets" subresource="scale" name="" namespace="shop"`, ""},
		{"get", "pods/frob", `verb="get" group="" resource="pods" subresource="frob" name="" namespace="shop"`, "--name frob"},
		{"get", "deploy/rub", `verb="get" group="apps" resource="deployments" subresource="rub" name="" namespace="shop"`, ""},
		{"get", "pods/rub", `verb="get" group="" resource="pods" subresource="" name="rub" namespace="shop"`, ""},
		{"get", "gadgets", `verb="get" group="" resource="gadgets" subresource="" name="" namespace="shop"`, "only rules name gadgets"},
		{"get", "secrets/polish", `verb="get" group="" resource="secrets" subresource="polish" name="" namespace="shop"`, ""},
		{"burnish", "pods", `verb="burnish" group="" resource="pods" subresource="" name="" namespace="shop"`, ""},
	} {
		c := access.Builtin()
		c.Learn(p)
		got, notes, err := c.Resolve(access.Spec{Verb: test.verb, Text: test.text, Namespace: "shop"})
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
		}
		if diff := cmp.Diff(test.want, got.Attributes(test.verb)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.text, diff)
		}
		if all := strings.Join(notes, "\n"); !strings.Contains(all, test.note) || strings.Contains(all, "is not a verb") {
			t.Errorf("%s: notes %q lack %q", test.text, notes, test.note)
		}
	}
}

func TestTyposInQuestions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ verb, text, want string }{
		{"crat", "pods", `"crat" is not a verb that Kubernetes uses: did you mean "create"?`},
		{"gett", "pods", `did you mean "get"?`},
		{"GET", "pods", `did you mean "get"?`},
		{"dlete", "pods", `did you mean "delete"?`},
		{"frobnicate", "pods", `"frobnicate" is not a verb that Kubernetes uses`},
		{"list", "/metrics", `"list" is not a verb that Kubernetes uses`},
		{"head", "/metrics", ""}, {"deletecollection", "pods", ""}, {"use", "pods", ""}, {"impersonate-on:user-info:list", "pods", ""}, {"*", "pods", ""},
	} {
		_, notes, err := access.Builtin().Resolve(access.Spec{Verb: test.verb, Text: test.text})
		if all := strings.Join(notes, "\n"); err != nil || !strings.Contains(all, test.want) || (test.want == "") != (all == "") {
			t.Errorf("%s %s: notes %q, %v; want %q", test.verb, test.text, notes, err, test.want)
		}
	}
	for text, want := range map[string]string{"podz": "did you mean pods?", "depoyments": "did you mean deployments?", "zzz": "write zzz.GROUP"} {
		_, _, err := access.Builtin().Resolve(access.Spec{Verb: "get", Text: text})
		if !strings.Contains(hint.Of(err), want) {
			t.Errorf("%s: error %v, want a hint with %q", text, err, want)
		}
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	c := access.Builtin()
	for _, role := range bootstrap.ClusterRoles() {
		for i := range role.Rules {
			if got := c.Lint(&role.Rules[i]); len(got) > 0 {
				t.Errorf("default role %s: %q", role.Name, got)
			}
		}
	}
	for _, test := range []struct {
		groups, resources, verbs string
		want                     string
	}{
		{"", "pods,pods/log,nodes/metrics,pods/finalizers", "get,create", ""},
		{",apps", "pods,deployments", "get", ""},
		{"*", "pods,things", "*", ""},
		{"example.com", "pod,Widgets", "frobnicate", ""}, // nothing is known of the group
		{"", "pod", "get", `resource "pod": did you mean "pods"?`},
		{"", "Secrets", "get", `resource "Secrets": did you mean "secrets"?`},
		{"", "servics", "get", `resource "servics": did you mean "services"?`},
		{"", "pods/logs", "get", `resource "pods/logs": did you mean "pods/log"?`},
		{"", "deployments", "get", `resource "deployments": it is in API group "apps"`},
		{"apps", "pods", "get", `resource "pods": it is in API group ""`},
		{"", "pods", "crat", `verb "crat": did you mean "create"?`},
		{"apps/v1", "deployments", "get", `API group "apps/v1": groups are named without a version, as "apps"`},
		{"core", "pods", "get", `API group "core": the core group is named ""`},
	} {
		rule := &rbacv1.PolicyRule{Verbs: strings.Split(test.verbs, ","), APIGroups: strings.Split(test.groups, ","), Resources: strings.Split(test.resources, ",")}
		if got := strings.Join(c.Lint(rule), "\n"); got != test.want {
			t.Errorf("%+v: %q, want %q", rule, got, test.want)
		}
	}
}
