package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics"

	"lanyard.dev/internal/node/server"
	"lanyard.dev/internal/pki"
)

// reviews answers all alike, and keeps what it was asked.
type reviews struct {
	answer authorizationv1.SubjectAccessReviewStatus
	err    error
	asked  []authorizationv1.SubjectAccessReviewSpec
}

func (r *reviews) Create(_ context.Context, review *authorizationv1.SubjectAccessReview, _ metav1.CreateOptions) (*authorizationv1.SubjectAccessReview, error) {
	r.asked = append(r.asked, review.Spec)
	review.Status = r.answer
	return review, r.err
}

// noRuntime fails the test that reaches it.
type noRuntime struct{ server.Runtime }

func handler(t *testing.T, r *reviews, cas *x509.CertPool) http.Handler {
	t.Helper()
	s, err := server.New(server.Config{
		NodeName: "n", Runtime: noRuntime{}, Reviews: r, Metrics: metrics.NewKubeRegistry(),
		Pods:        server.View(func(_, _ string) (*corev1.Pod, string, bool) { return nil, "", false }),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") },
		ClientCAs:   func() *x509.CertPool { return cas },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler()
}

func TestAccess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := pki.EnsureAuthority(filepath.Join(dir, "crt"), filepath.Join(dir, "key"), "ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.NewClient("jane", []string{"dev"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate())
	shown := []*x509.Certificate{pair.Certificate()}
	yes, no := authorizationv1.SubjectAccessReviewStatus{Allowed: true}, authorizationv1.SubjectAccessReviewStatus{}
	away := errors.New("away")
	for name, test := range map[string]struct {
		method, path      string
		shown             []*x509.Certificate
		cas               *x509.CertPool
		reviews           reviews
		code              int
		verb, subresource string // asked
	}{
		"logs":                {"GET", "/containerLogs/ns/p/c", shown, pool, reviews{answer: yes}, 404, "get", "proxy"},
		"exec":                {"POST", "/exec/ns/p/c?command=x&output=1", shown, pool, reviews{answer: yes}, 404, "create", "proxy"},
		"exec by GET":         {"GET", "/exec/ns/p/c?command=x&output=1", shown, pool, reviews{answer: yes}, 404, "create", "proxy"},
		"exec of nothing":     {"POST", "/exec/ns/p/c?output=1", shown, pool, reviews{answer: yes}, 400, "create", "proxy"},
		"exec without stream": {"POST", "/exec/ns/p/c?command=x", shown, pool, reviews{answer: yes}, 400, "create", "proxy"},
		"attach by GET":       {"GET", "/attach/ns/p/c?output=1", shown, pool, reviews{answer: yes}, 404, "create", "proxy"},
		"forward by GET":      {"GET", "/portForward/ns/p", shown, pool, reviews{answer: yes}, 404, "create", "proxy"},
		"bad port":            {"GET", "/portForward/ns/p?port=x", shown, pool, reviews{answer: yes}, 400, "create", "proxy"},
		"bad log options":     {"GET", "/containerLogs/ns/p/c?tailLines=-1", shown, pool, reviews{answer: yes}, 422, "get", "proxy"},
		"metrics":             {"GET", "/metrics", shown, pool, reviews{answer: yes}, 200, "get", "metrics"},
		"denied":              {"GET", "/metrics", shown, pool, reviews{answer: no}, 403, "get", "metrics"},
		"allowed and denied":  {"GET", "/metrics", shown, pool, reviews{answer: authorizationv1.SubjectAccessReviewStatus{Allowed: true, Denied: true}}, 403, "get", "metrics"},
		"authority away":      {"GET", "/metrics", shown, pool, reviews{answer: yes, err: away}, 500, "get", "metrics"},
		"no certificate":      {"GET", "/metrics", nil, pool, reviews{answer: yes}, 401, "", ""},
		"no CA now":           {"GET", "/metrics", shown, nil, reviews{answer: yes}, 401, "", ""},
		"another CA":          {"GET", "/metrics", shown, x509.NewCertPool(), reviews{answer: yes}, 401, "", ""},
		"health":              {"GET", "/healthz", nil, nil, reviews{err: away}, 200, "", ""},
		"health is not set":   {"POST", "/healthz", nil, nil, reviews{err: away}, 405, "", ""},
		"pods":                {"GET", "/pods", shown, pool, reviews{answer: yes}, 404, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), test.method, test.path, nil)
			r.TLS = &tls.ConnectionState{PeerCertificates: test.shown}
			w := httptest.NewRecorder()
			asked := test.reviews
			handler(t, &asked, test.cas).ServeHTTP(w, r)
			if w.Code != test.code {
				t.Errorf("got %d: %s", w.Code, w.Body)
			}
			if test.verb == "" {
				if len(asked.asked) > 0 {
					t.Errorf("asked %+v", asked.asked)
				}
				return
			}
			spec := asked.asked[0]
			if spec.User != "jane" || strings.Join(spec.Groups, ",") != "dev,system:authenticated" || *spec.ResourceAttributes != (authorizationv1.ResourceAttributes{
				Verb: test.verb, Version: "v1", Resource: "nodes", Subresource: test.subresource, Name: "n",
			}) {
				t.Errorf("asked %+v of %+v", spec.ResourceAttributes, spec)
			}
		})
	}
}

func TestNewWantsAll(t *testing.T) {
	t.Parallel()
	if _, err := server.New(server.Config{NodeName: "n"}); err == nil {
		t.Error("a server of nothing")
	}
}
