// Promise: discovery, OpenAPI and the issuer's documents describe exactly what is served.

package systemtest

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The verbs of a stored resource, of a subresource, of a kind that is answered and never stored, and of a stored resource without
// deletecollection.
const (
	stored       = "create delete deletecollection get list patch update watch"
	part         = "get patch update"
	asked        = "create"
	noCollection = "create delete get list patch update watch"
	computed     = "delete deletecollection get list watch"
)

// served lists everything the API serves, by group version, as "resource Kind short-names categories scope: verbs".
var served = map[string][]string{
	"v1": {
		"configmaps ConfigMap [cm] [] namespaced: " + stored,
		"events Event [ev] [] namespaced: " + stored,
		"namespaces Namespace [ns] [] cluster: " + noCollection,
		"namespaces/finalize Namespace [] [] cluster: update",
		"namespaces/status Namespace [] [] cluster: " + part,
		"nodes Node [no] [] cluster: " + stored,
		"nodes/status Node [] [] cluster: " + part,
		"pods Pod [po] [all] namespaced: " + stored,
		"pods/attach PodAttachOptions [] [] namespaced: create get",
		"pods/binding Binding [] [] namespaced: create",
		"pods/eviction Eviction [] [] namespaced: create",
		"pods/exec PodExecOptions [] [] namespaced: create get",
		"pods/log Pod [] [] namespaced: get",
		"pods/portforward PodPortForwardOptions [] [] namespaced: create get",
		"pods/status Pod [] [] namespaced: " + part,
		"secrets Secret [] [] namespaced: " + stored,
		"serviceaccounts ServiceAccount [sa] [] namespaced: " + stored,
		"serviceaccounts/token TokenRequest [] [] namespaced: " + asked,
	},
	"authentication.k8s.io/v1": {
		"selfsubjectreviews SelfSubjectReview [] [] cluster: " + asked,
		"tokenreviews TokenReview [] [] cluster: " + asked,
	},
	"authorization.k8s.io/v1": {
		"localsubjectaccessreviews LocalSubjectAccessReview [] [] namespaced: " + asked,
		"selfsubjectaccessreviews SelfSubjectAccessReview [] [] cluster: " + asked,
		"selfsubjectrulesreviews SelfSubjectRulesReview [] [] cluster: " + asked,
		"subjectaccessreviews SubjectAccessReview [] [] cluster: " + asked,
	},
	"certificates.k8s.io/v1": {
		"certificatesigningrequests CertificateSigningRequest [csr] [] cluster: " + stored,
		"certificatesigningrequests/approval CertificateSigningRequest [] [] cluster: " + part,
		"certificatesigningrequests/status CertificateSigningRequest [] [] cluster: " + part,
	},
	"coordination.k8s.io/v1": {"leases Lease [] [] namespaced: " + stored},
	"events.k8s.io/v1":       {"events Event [ev] [] namespaced: " + stored},
	"identity.lanyard.dev/v1alpha1": {
		"issuedcertificates IssuedCertificate [cert] [credentials] cluster: " + computed,
		"issuedtokens IssuedToken [tok] [credentials] namespaced: " + computed,
		"signingkeys SigningKey [] [] cluster: create delete get list watch",
	},
	"rbac.authorization.k8s.io/v1": {
		"clusterrolebindings ClusterRoleBinding [] [] cluster: " + stored,
		"clusterroles ClusterRole [] [] cluster: " + stored,
		"rolebindings RoleBinding [] [] namespaced: " + stored,
		"roles Role [] [] namespaced: " + stored,
	},
}

// servedResources reads discovery group by group, as old clients do.
func servedResources(t testing.TB, c *caller) map[string][]metav1.APIResource {
	t.Helper()
	var groups metav1.APIGroupList
	c.must(t, http.MethodGet, "/apis", nil).decode(t, &groups)
	paths := map[string]string{"v1": "/api/v1"}
	for _, g := range groups.Groups {
		for _, v := range g.Versions {
			paths[v.GroupVersion] = "/apis/" + v.GroupVersion
		}
	}
	found := map[string][]metav1.APIResource{}
	for gv, path := range paths {
		var list metav1.APIResourceList
		c.must(t, http.MethodGet, path, nil).decode(t, &list)
		if list.GroupVersion != gv {
			t.Errorf("%s is of group version %q", path, list.GroupVersion)
		}
		found[gv] = list.APIResources
	}
	return found
}

// resourceLine formats a resource as an entry of served.
func resourceLine(name, kind string, short, categories []string, namespaced bool, verbs []string) string {
	scope := "cluster"
	if namespaced {
		scope = "namespaced"
	}
	list := func(s []string) string { return " [" + strings.Join(s, ",") + "]" }
	verbs = slices.Sorted(slices.Values(verbs))
	return name + " " + kind + list(short) + list(categories) + " " + scope + ": " + strings.Join(verbs, " ")
}

func TestDiscoveryListsExactlyWhatIsServed(t *testing.T) {
	t.Parallel()
	got := map[string][]string{}
	for gv, resources := range servedResources(t, callerFor(t, authority(t).Config())) {
		for _, r := range resources {
			got[gv] = append(got[gv], resourceLine(r.Name, r.Kind, r.ShortNames, r.Categories, r.Namespaced, r.Verbs))
		}
		slices.Sort(got[gv])
	}
	if diff := cmp.Diff(served, got); diff != "" {
		t.Errorf("discovery (-want +got):\n%s", diff)
	}
}

func TestAggregatedDiscoveryListsTheSame(t *testing.T) {
	t.Parallel()
	admin := callerFor(t, authority(t).Config())
	got := map[string][]string{}
	for _, path := range []string{"/api", "/apis"} {
		answer := admin.must(t, http.MethodGet, path, nil, "Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
		var list apidiscoveryv2.APIGroupDiscoveryList
		answer.decode(t, &list)
		for _, group := range list.Items {
			for _, v := range group.Versions {
				gv := strings.TrimPrefix(group.Name+"/"+v.Version, "/")
				got[gv] = aggregatedLines(v.Resources)
			}
		}
	}
	if diff := cmp.Diff(served, got); diff != "" {
		t.Errorf("aggregated discovery (-want +got):\n%s", diff)
	}
}

func aggregatedLines(resources []apidiscoveryv2.APIResourceDiscovery) []string {
	var lines []string
	for _, r := range resources {
		namespaced := r.Scope == apidiscoveryv2.ScopeNamespace
		lines = append(lines, resourceLine(r.Resource, r.ResponseKind.Kind, r.ShortNames, r.Categories, namespaced, r.Verbs))
		for _, s := range r.Subresources {
			lines = append(lines, resourceLine(r.Resource+"/"+s.Subresource, s.ResponseKind.Kind, nil, nil, namespaced, s.Verbs))
		}
	}
	slices.Sort(lines)
	return lines
}

func TestOpenAPIDescribesWhatIsServed(t *testing.T) {
	t.Parallel()
	admin := callerFor(t, authority(t).Config())
	v2 := admin.must(t, http.MethodGet, "/openapi/v2", nil).body
	checkDocument(t, "/openapi/v2", v2)
	if proto := admin.must(t, http.MethodGet, "/openapi/v2", nil, "Accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"); len(proto.body) == 0 {
		t.Error("/openapi/v2 has no protobuf form, which kubectl asks for")
	}

	var index struct {
		Paths map[string]struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	admin.must(t, http.MethodGet, "/openapi/v3", nil).decode(t, &index)
	for gv := range served {
		path := "apis/" + gv
		if gv == "v1" {
			path = "api/v1"
		}
		at, ok := index.Paths[path]
		if !ok {
			t.Errorf("/openapi/v3 lacks %s: %v", path, slices.Sorted(maps.Keys(index.Paths)))
			continue
		}
		v3 := admin.must(t, http.MethodGet, at.ServerRelativeURL, nil).body
		checkDocument(t, path, v3)
		for _, resource := range served[gv] {
			name, _, _ := strings.Cut(resource, " ")
			first, _, _ := strings.Cut(name, "/")
			if !strings.Contains(string(v3), "/"+first) || !strings.Contains(string(v2), "/"+first) {
				t.Errorf("OpenAPI of %s does not describe %s", gv, name)
			}
		}
	}
}

// checkDocument checks that a document is JSON and does not name the internal versions of kinds.
func checkDocument(t *testing.T, path string, document []byte) {
	t.Helper()
	if !json.Valid(document) {
		t.Errorf("%s is not JSON", path)
	}
	if strings.Contains(string(document), "__internal") {
		t.Errorf("%s names __internal", path)
	}
}

// TestEveryAccountReadsTheEmptyListOfCustomResourceDefinitions reads the list as an account without any rights. Clients read
// it to learn about a kind that they do not know. If the list were forbidden, they would report that instead of the unknown
// kind.
func TestEveryAccountReadsTheEmptyListOfCustomResourceDefinitions(t *testing.T) {
	t.Parallel()
	a := authority(t)
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	account := bearer(t, a.Config(), a.Token(t, metav1.NamespaceDefault, metav1.NamespaceDefault))
	var list struct {
		Kind  string
		Items []any
	}
	account.must(t, http.MethodGet, path, nil).decode(t, &list)
	if list.Kind != "CustomResourceDefinitionList" || len(list.Items) > 0 {
		t.Errorf("got %+v", list)
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete} {
		if got := account.do(t, method, path, "{}"); got.code != http.StatusForbidden {
			t.Errorf("%s: %s", method, got)
		}
	}
	if got := bearer(t, a.Config(), "").get(t, path); got.code != http.StatusForbidden {
		t.Errorf("anonymous: %s", got)
	}
}

// TestUnknownPathsAreNotFound requests groups, versions and paths that are not served, as a user who may read the list of
// paths at "/". The answer is a Status in the encoding that the caller accepts, and never that list.
func TestUnknownPathsAreNotFound(t *testing.T) {
	t.Parallel()
	admin := callerFor(t, authority(t).Config())
	for _, path := range []string{
		"/apis/apps", "/apis/apps/v1", "/apis/apps/v1/deployments", "/apis/apps/v1/namespaces/default/deployments/web",
		"/apis/nope", "/apis/certificates.k8s.io/v2", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/none",
		"/api/v2", "/api/v1/services", "/apis/rbac.authorization.k8s.io/v1/nope", "/.well-known/openid-configuration/",
		"/.well-known", "/openid/v1/jwks/", "/livez/nope", "/nope", "/index",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			got := admin.do(t, method, path, nil)
			status := got.status(t)
			if got.code != http.StatusNotFound || status.Reason != metav1.StatusReasonNotFound || status.Message != "the server could not find the requested resource" {
				t.Errorf("%s %s: %s", method, path, got)
			}
			if strings.Contains(string(got.body), `"paths"`) {
				t.Errorf("%s %s lists paths: %s", method, path, got)
			}
		}
	}
	if got := admin.get(t, "/apis/nope", "Accept", "application/yaml"); !strings.Contains(string(got.body), "kind: Status\n") {
		t.Errorf("as YAML: %s", got)
	}
	var root metav1.RootPaths
	admin.must(t, http.MethodGet, "/", nil).decode(t, &root)
	if !slices.Contains(root.Paths, "/apis") {
		t.Errorf("/ lists %q", root.Paths)
	}
	if got := admin.do(t, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "{}"); got.status(t).Code != http.StatusMethodNotAllowed {
		t.Errorf("creation of a custom resource definition: %s", got)
	}
}

func TestServerPaths(t *testing.T) {
	t.Parallel()
	admin := callerFor(t, authority(t).Config())
	var version struct{ Major, Minor, GitVersion string }
	answer := admin.must(t, http.MethodGet, "/version", nil)
	answer.decode(t, &version)
	if version.Major != "1" || version.Minor != "37" || !strings.HasPrefix(version.GitVersion, "v1.37.") || !strings.HasSuffix(version.GitVersion, "+lanyard") {
		t.Errorf("/version: %+v", version)
	}
	if strings.Contains(string(answer.body), "$") {
		t.Errorf("/version has a placeholder: %s", answer)
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz", "/livez/ping"} {
		if got := admin.get(t, path); got.code != http.StatusOK || string(got.body) != "ok" {
			t.Errorf("%s: %s", path, got)
		}
	}
	for path, want := range map[string]string{
		"/livez?verbose": "[+]ping ok", "/readyz?verbose": "[+]etcd ok",
		"/metrics": `apiserver_request_total{`,
	} {
		if got := admin.get(t, path); got.code != http.StatusOK || !strings.Contains(string(got.body), want) {
			t.Errorf("%s lacks %q: %s", path, want, got)
		}
	}
}

func TestIssuerDocuments(t *testing.T) {
	t.Parallel()
	a := authority(t)
	anonymous := bearer(t, a.Config(), "")
	got := anonymous.get(t, "/.well-known/openid-configuration")
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	got.decode(t, &document)
	if document.Issuer != a.URL() || document.JWKSURI != a.URL()+"/openid/v1/jwks" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("discovery document: %v %s", got.header, got)
	}
	got = anonymous.get(t, strings.TrimPrefix(document.JWKSURI, a.URL()))
	var keys struct {
		Keys []struct{ Kid, Alg, Use string }
	}
	got.decode(t, &keys)
	if len(keys.Keys) != 1 || keys.Keys[0].Alg != "ES256" || got.header.Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("key set: %v %s", got.header, got)
	}
	for _, h := range []string{got.header.Get("Cache-Control")} {
		if !strings.Contains(h, "max-age=") || strings.Contains(h, "no-cache") {
			t.Errorf("the key set cannot be cached: Cache-Control is %q", h)
		}
	}
}
