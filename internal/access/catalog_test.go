package access_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/access"
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
		{access.Spec{Text: "widgets/w1"}, access.Target{Resource: "widgets", AnyGroup: true, Name: "w1", Namespace: "shop"}},
		{access.Spec{Text: "widgets/status"}, access.Target{Resource: "widgets", AnyGroup: true, Subresource: "status", Namespace: "shop"}},
		{access.Spec{Text: "widgets.v1beta1.example.com"}, access.Target{Resource: "widgets", APIGroup: "example.com", Namespace: "shop"}},
		{access.Spec{Text: "*"}, access.Target{Resource: "*", APIGroup: "*", Namespace: "shop"}},
		{access.Spec{Text: "*.apps"}, access.Target{Resource: "*", APIGroup: "apps", Namespace: "shop"}},
		{access.Spec{Text: "/metrics"}, access.Target{Path: "/metrics"}},
		{access.Spec{Verb: "create", Text: "pods/web"}, pods},
		{access.Spec{Verb: "create", Text: "pods/web/exec"}, with(func(t *access.Target) { t.Name, t.Subresource = "web", "exec" })},
	} {
		test.spec.Namespace = "shop"
		got, _, err := access.Builtin().Resolve(test.spec)
		if err != nil {
			t.Errorf("%s: %v", test.spec.Text, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test.spec, diff)
		}
	}
	for _, text := range []string{"", "pods/", "pods//log", "a/b/c/d"} {
		if got, _, err := access.Builtin().Resolve(access.Spec{Text: text}); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
	if _, _, err := access.Builtin().Resolve(access.Spec{Text: "pods/a/b", Subresource: &log}); err == nil {
		t.Error("two subresources are taken")
	}
}

func TestResolveByDiscovery(t *testing.T) {
	t.Parallel()
	c := access.NewCatalog([]*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "pods", SingularName: "pod", Kind: "Pod", ShortNames: []string{"po"}, Namespaced: true},
			{Name: "pods/mend", Kind: "Pod", Namespaced: true},
		}},
		{GroupVersion: "example.com/v1", APIResources: []metav1.APIResource{{Name: "widgets", Kind: "Widget", ShortNames: []string{"wd"}}}},
		{GroupVersion: "example.com/v1beta1", APIResources: []metav1.APIResource{{Name: "widgets", Kind: "Widget", Namespaced: true}}},
		{GroupVersion: "a/b/c"},
	})
	for _, test := range []struct {
		text string
		want access.Target
		note string
	}{
		{"wd/one", access.Target{APIGroup: "example.com", Resource: "widgets", Name: "one", ClusterScoped: true}, ""},
		{"widget", access.Target{APIGroup: "example.com", Resource: "widgets", ClusterScoped: true}, ""},
		{"pods/mend", access.Target{Resource: "pods", Subresource: "mend", Namespace: "shop"}, ""},
		{"pods/log", access.Target{Resource: "pods", Name: "log", Namespace: "shop"}, ""}, // not a subresource there
		{"deploy", access.Target{APIGroup: "apps", Resource: "deployments", Namespace: "shop"}, "does not serve deploy"},
		{"gadgets", access.Target{AnyGroup: true, Resource: "gadgets", Namespace: "shop"}, "does not serve gadgets"},
		{"*", access.Target{APIGroup: "*", Resource: "*", Namespace: "shop"}, ""},
	} {
		got, notes, err := c.Resolve(access.Spec{Text: test.text, Namespace: "shop"})
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.text, diff)
		}
		if all := strings.Join(notes, "\n"); !strings.Contains(all, test.note) || (test.note == "") != (all == "") {
			t.Errorf("%s: notes %q", test.text, notes)
		}
	}
}
