// Promise: token requests and reviews, which are answered and never stored, obey the same rules as stored kinds.

package systemtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"
)

// ephemeralPaths are the paths of the kinds that are answered and never stored, below the prefix of their group.
var ephemeralPaths = []struct{ prefix, path, body string }{
	{"/api/v1", "/namespaces/default/serviceaccounts/default/token", `{"spec":{}}`},
	{"/apis/authentication.k8s.io/v1", "/tokenreviews", `{"spec":{"token":"x"}}`},
	{"/apis/authentication.k8s.io/v1", "/selfsubjectreviews", `{}`},
	{"/apis/authorization.k8s.io/v1", "/subjectaccessreviews", `{"spec":{"user":"u","nonResourceAttributes":{"verb":"get","path":"/"}}}`},
	{"/apis/authorization.k8s.io/v1", "/selfsubjectaccessreviews", `{"spec":{"nonResourceAttributes":{"verb":"get","path":"/"}}}`},
	{"/apis/authorization.k8s.io/v1", "/namespaces/default/localsubjectaccessreviews", `{"spec":{"user":"u","resourceAttributes":{"namespace":"default","verb":"get","resource":"pods"}}}`},
	{"/apis/authorization.k8s.io/v1", "/selfsubjectrulesreviews", `{"spec":{"namespace":"default"}}`},
}

// A path under /watch or /proxy is authorized with that verb. A caller with those verbs alone must not create anything
// through it.
func TestEphemeralKindsAreOnlyCreated(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	a.CreateServiceAccount(t, namespace, "auditor")
	bindClusterRole(t, a.Client(), namespace+"-auditor", accountSubject(namespace, "auditor"), rbacv1.PolicyRule{
		Verbs: []string{"get", "list", "watch", "proxy"}, APIGroups: []string{"*"}, Resources: []string{"*"},
	})
	auditor := callerFor(t, a.As(t, namespace, "auditor"))
	admin := callerFor(t, a.Config())
	for _, kind := range ephemeralPaths {
		if got := admin.do(t, http.MethodPost, kind.prefix+kind.path, json.RawMessage(kind.body)); got.code != http.StatusCreated {
			t.Errorf("%s itself: %s", kind.path, got)
		}
		for _, detour := range []string{"/watch", "/proxy"} {
			for who, caller := range map[string]*caller{"auditor": auditor, "admin": admin} {
				got := caller.do(t, http.MethodPost, kind.prefix+detour+kind.path, json.RawMessage(kind.body))
				if !slices.Contains([]int{http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed}, got.code) {
					t.Errorf("%s by %s%s: %s", who, detour, kind.path, got)
				}
			}
		}
		if got := admin.do(t, http.MethodPost, kind.prefix+kind.path+"/more", json.RawMessage(kind.body)); got.code < 400 {
			t.Errorf("%s/more: %s", kind.path, got)
		}
	}
}

// Rights in a namespace do not permit a cluster-wide review, so no path of a namespace answers one.
func TestEphemeralKindsKeepTheirScope(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	a.CreateServiceAccount(t, namespace, "chief")
	a.Grant(t, namespace, "chief", rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}})
	chief := callerFor(t, a.As(t, namespace, "chief"))
	for _, kind := range ephemeralPaths {
		if strings.Contains(kind.path, "namespaces/") {
			continue
		}
		path := kind.prefix + "/namespaces/" + namespace + kind.path
		if got := chief.do(t, http.MethodPost, path, json.RawMessage(kind.body)); got.code < 400 {
			t.Errorf("POST %s: %s", path, got)
		}
	}
}

// The server creates nothing if it cannot encode the answer in a form that the caller accepts.
func TestEphemeralKindsNegotiateFirst(t *testing.T) {
	t.Parallel()
	admin := callerFor(t, authority(t).Config())
	for _, kind := range ephemeralPaths {
		got := admin.do(t, http.MethodPost, kind.prefix+kind.path, json.RawMessage(kind.body), "Accept", "image/png")
		if got.code != http.StatusNotAcceptable {
			t.Errorf("%s as image/png: %s", kind.path, got)
		}
	}
}

// Requests that time out leave goroutines behind that add warnings. A warning must not reach response headers that are being
// written: the concurrent writes would end the process.
func TestLateWarningsAreHarmless(t *testing.T) {
	t.Parallel()
	a := floodWithTimeouts(t)
	if got := callerFor(t, a).get(t, "/readyz"); got.code != http.StatusOK {
		t.Errorf("after the flood: %s", got)
	}
}

// floodWithTimeouts sends requests with many warnings and short timeouts, and returns the configuration of the authority.
func floodWithTimeouts(t *testing.T) *rest.Config {
	t.Helper()
	config := authority(t).Config()
	admin := callerFor(t, config)
	fields := make([]string, 400)
	for i := range fields {
		fields[i] = fmt.Sprintf(`"unknown%d":1`, i)
	}
	body := []byte("{" + strings.Join(fields, ",") + "}")
	count := 150
	if testing.Short() {
		count = 30
	}
	var clients sync.WaitGroup
	for c := range 8 {
		clients.Go(func() {
			for i := range count {
				timeout := time.Duration(200+(i*317+c*1013)%20000) * time.Microsecond
				path := "/api/v1/namespaces/default/configmaps/kube-root-ca.crt?dryRun=All&fieldValidation=Warn&timeout=" + timeout.String()
				// The answer does not matter: most requests time out.
				_, _ = admin.try(t.Context(), http.MethodPatch, path, body, "Content-Type", "application/merge-patch+json")
			}
		})
	}
	clients.Wait()
	return config
}

// TestEphemeralKindsValidateFields covers the kinds that are answered and never stored, which the ephemeral handler decodes.
func TestEphemeralKindsValidateFields(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, admin := a.Namespace(t), callerFor(t, a.Config())
	for path, body := range map[string]string{
		"/api/v1/namespaces/" + namespace + "/serviceaccounts/default/token":                   `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","nothing":1}`,
		"/apis/authentication.k8s.io/v1/tokenreviews":                                          `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","spec":{"token":"x"},"nothing":1}`,
		"/apis/authentication.k8s.io/v1/selfsubjectreviews":                                    `{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1","nothing":1}`,
		"/apis/authorization.k8s.io/v1/subjectaccessreviews":                                   `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"user":"u","nonResourceAttributes":{"path":"/","verb":"get"}},"nothing":1}`,
		"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":                               `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"nonResourceAttributes":{"path":"/","verb":"get"}},"nothing":1}`,
		"/apis/authorization.k8s.io/v1/namespaces/" + namespace + "/localsubjectaccessreviews": `{"kind":"LocalSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{"namespace":"` + namespace + `"},"spec":{"user":"u","resourceAttributes":{"namespace":"` + namespace + `","verb":"get","resource":"pods"}},"nothing":1}`,
		"/apis/authorization.k8s.io/v1/selfsubjectrulesreviews":                                `{"kind":"SelfSubjectRulesReview","apiVersion":"authorization.k8s.io/v1","spec":{"namespace":"` + namespace + `"},"nothing":1}`,
	} {
		if got := admin.do(t, http.MethodPost, path+"?fieldValidation=Strict", body); got.code != http.StatusBadRequest || !strings.Contains(got.status(t).Message, `unknown field "nothing"`) {
			t.Errorf("%s, Strict: %s", path, got)
		}
		got := admin.do(t, http.MethodPost, path, body)
		if warnings := strings.Join(got.header.Values("Warning"), "\n"); got.code != http.StatusCreated || !strings.Contains(warnings, `unknown field \"nothing\"`) {
			t.Errorf("%s, Warn: %s with warnings %q", path, got, warnings)
		}
		if got := admin.do(t, http.MethodPost, path+"?fieldValidation=Ignore", body); got.code != http.StatusCreated {
			t.Errorf("%s, Ignore: %s", path, got)
		}
		if got := admin.get(t, path); got.code != http.StatusMethodNotAllowed && got.code != http.StatusNotFound {
			t.Errorf("GET %s: %s", path, got)
		}
	}
}
