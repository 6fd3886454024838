package apiserver

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	identityv1alpha1 "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver/api"
)

// readOnly is a storage that serves neither creations nor updates.
type readOnly struct{}

func (readOnly) New() runtime.Object { return &identityv1alpha1.IssuedToken{} }
func (readOnly) Destroy()            {}

// TestComputedRequests checks the answers, and what the audit log gets.
func TestComputedRequests(t *testing.T) {
	t.Parallel()
	c := &computedRequests{
		api:        http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }),
		serializer: serializer.NewCodecFactory(api.All().NewScheme()),
		served:     map[schema.GroupVersion]map[string]rest.Storage{identityv1alpha1.SchemeGroupVersion: {"issuedtokens": readOnly{}}},
	}
	for _, test := range []struct {
		group, verb, resource, subresource, reason string
		code                                       int
		answer, annotation                         string
	}{
		{"identity.lanyard.dev", "get", "issuedtokens", "", "x", http.StatusTeapot, "", ""},
		{"identity.lanyard.dev", "create", "issuedtokens", "", "", http.StatusMethodNotAllowed,
			"issuedtokens.identity.lanyard.dev cannot be created: the server makes the objects from its own records", ""},
		{"identity.lanyard.dev", "patch", "issuedtokens", "", "", http.StatusMethodNotAllowed, "cannot be changed", ""},
		{"identity.lanyard.dev", "update", "issuedtokens", "", "", http.StatusMethodNotAllowed, "cannot be changed", ""},
		{"identity.lanyard.dev", "create", "others", "", "", http.StatusTeapot, "", ""},
		{"identity.lanyard.dev", "create", "issuedtokens", "sub", "", http.StatusTeapot, "", ""},
		{"other.example", "delete", "issuedtokens", "", "x", http.StatusTeapot, "", ""},
		{"identity.lanyard.dev", "delete", "issuedtokens", "", "found in a log", http.StatusTeapot, "", "found in a log"},
		{"identity.lanyard.dev", "deletecollection", "issuedtokens", "", "a person left", http.StatusTeapot, "", "a person left"},
		{"identity.lanyard.dev", "delete", "issuedtokens", "", strings.Repeat("x", 1025), http.StatusBadRequest, "more than 1024 bytes", ""},
	} {
		ctx := audit.WithAuditContext(t.Context())
		if err := audit.AuditContextFrom(ctx).Init(audit.RequestAuditConfig{Level: auditinternal.LevelMetadata}, nil); err != nil {
			t.Fatal(err)
		}
		ctx = request.WithRequestInfo(ctx, &request.RequestInfo{
			IsResourceRequest: true, APIGroup: test.group, APIVersion: "v1alpha1", Verb: test.verb, Resource: test.resource, Subresource: test.subresource,
		})
		target := "/?reason=" + url.QueryEscape(test.reason)
		answer := httptest.NewRecorder()
		c.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodPost, target, nil))
		if answer.Code != test.code || !strings.Contains(answer.Body.String(), test.answer) {
			t.Errorf("%s %s: %d %s", test.verb, test.resource, answer.Code, answer.Body)
		}
		if got, _ := audit.AuditContextFrom(ctx).GetEventAnnotation(reasonAnnotation); got != test.annotation {
			t.Errorf("%s %s: annotated with %.40q, want %q", test.verb, test.resource, got, test.annotation)
		}
	}
}
