package api

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/registry/rest"
)

// TestScopesOfReviews checks that only LocalSubjectAccessReviews are namespaced.
func TestScopesOfReviews(t *testing.T) {
	t.Parallel()
	stores, err := Tables{authorization(), authentication()}.NewStores(Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	namespaced := map[string]bool{}
	for _, kind := range stores.Serve(Backends{}).Ephemeral {
		namespaced[kind.Resource] = kind.Storage.(rest.Scoper).NamespaceScoped()
	}
	want := map[string]bool{
		"subjectaccessreviews": false, "selfsubjectaccessreviews": false, "localsubjectaccessreviews": true,
		"selfsubjectrulesreviews": false, "tokenreviews": false, "selfsubjectreviews": false,
	}
	if !maps.Equal(namespaced, want) {
		t.Errorf("namespaced: %v", namespaced)
	}
}

// TestEntriesAreWhole checks the rules of entries that their types cannot state.
func TestEntriesAreWhole(t *testing.T) {
	t.Parallel()
	for _, e := range All().entries() {
		name := e.groupResource()
		made := 0
		for _, makes := range []bool{e.Stored != nil, e.Computed != nil, e.Ephemeral != nil} {
			if makes {
				made++
			}
		}
		if made != 1 {
			t.Errorf("%s: one of Stored, Computed and Ephemeral must be set", name)
		}
		listed := e.Ephemeral == nil
		if e.Singular == "" || e.Kind == nil || (e.List != nil) != listed || (len(e.Columns) > 0) != listed {
			t.Errorf("%s: a name, type or column is missing or superfluous", name)
		}
		if e.Mirrored && !e.stores() {
			t.Errorf("%s has no store to mirror", name)
		}
		for _, p := range e.Subresources {
			set := 0
			for _, makes := range []bool{p.Store != nil, p.Connect != nil, p.Ephemeral != nil} {
				if makes {
					set++
				}
			}
			if set != 1 || p.Name == "" {
				t.Errorf("%s/%s: one of Store, Connect and Ephemeral must be set", name, p.Name)
			}
		}
	}
}

// TestOpenAPIIsGeneratedForTheTables compares the packages that OpenAPI is generated from with those whose types the
// tables serve.
func TestOpenAPIIsGeneratedForTheTables(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../openapi/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, v := range All().schemeVersions() {
		for _, example := range v.types {
			served[reflect.TypeOf(example).Elem().PkgPath()] = true
		}
	}
	var generated []string
	for _, path := range regexp.MustCompile(`(?:k8s\.io/api|lanyard\.dev/apis)/\S+`).FindAllString(string(text), -1) {
		generated = append(generated, strings.TrimSpace(path))
	}
	slices.Sort(generated)
	if want := slices.Sorted(maps.Keys(served)); !slices.Equal(generated, want) {
		t.Errorf("OpenAPI is generated from %v, and the tables serve types of %v: correct the go:generate line in openapi/doc.go and run it", generated, want)
	}
}

// TestCredentials checks the tables for the requests whose bodies contain tokens or secret values.
func TestCredentials(t *testing.T) {
	t.Parallel()
	credentials := All().Credentials()
	for _, test := range []struct {
		resource, subresource string
		want                  bool
	}{
		{"secrets", "", true}, {"secrets", "status", true}, {"serviceaccounts", "token", true}, {"tokenreviews", "", true},
		{"serviceaccounts", "", false}, {"pods", "", false}, {"pods", "token", false}, {"configmaps", "", false}, {"", "", false},
	} {
		if got := credentials(test.resource, test.subresource); got != test.want {
			t.Errorf("%s/%s: %v, want %v", test.resource, test.subresource, got, test.want)
		}
	}
}

// TestUnstored checks for which resources and subresources of the tables bodies are not stored. Such bodies have a small limit.
func TestUnstored(t *testing.T) {
	t.Parallel()
	unstored, small := All().Unstored(), map[string]bool{}
	for _, e := range All().entries() {
		names := []string{""}
		for _, sub := range e.Subresources {
			names = append(names, sub.Name)
		}
		for _, name := range names {
			if unstored(e.Group, e.Name, name) {
				small[strings.TrimSuffix(e.groupResource().String()+"/"+name, "/")] = true
			}
		}
	}
	want := []string{
		"issuedcertificates.identity.lanyard.dev", "issuedtokens.identity.lanyard.dev",
		"localsubjectaccessreviews.authorization.k8s.io", "pods/attach", "pods/binding", "pods/eviction", "pods/exec", "pods/log",
		"pods/portforward", "selfsubjectaccessreviews.authorization.k8s.io", "selfsubjectreviews.authentication.k8s.io",
		"selfsubjectrulesreviews.authorization.k8s.io", "serviceaccounts/token", "signingkeys.identity.lanyard.dev", "subjectaccessreviews.authorization.k8s.io",
		"tokenreviews.authentication.k8s.io",
	}
	if got := slices.Sorted(maps.Keys(small)); !slices.Equal(got, want) {
		t.Errorf("resources whose bodies are not stored: %q, want %q", got, want)
	}
	for _, name := range []string{"", "token"} {
		if unstored("example.com", "serviceaccounts", name) || unstored("", "", name) {
			t.Errorf("a resource that is not served has an unstored body, subresource %q", name)
		}
	}
}

// TestSessions checks the tables for the subresources whose requests have no deadline.
func TestSessions(t *testing.T) {
	t.Parallel()
	got := All().Sessions()
	slices.Sort(got)
	if want := []string{"attach", "exec", "log", "portforward"}; !slices.Equal(got, want) {
		t.Errorf("sessions %q, want %q", got, want)
	}
}
