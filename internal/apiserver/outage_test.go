package apiserver_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/registry/storagetest"
)

// caller makes requests as one user, and never repeats a request.
type caller struct {
	*http.Client
	host, token string
	header      http.Header
}

func callerBy(t *testing.T, config *rest.Config, token string, header http.Header) *caller {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return &caller{client, config.Host, token, header}
}

// ask sends a POST if body is not empty, else a GET.
func (c *caller) ask(t *testing.T, path, body string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, method, c.host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range c.header {
		r.Header[name] = values
	}
	r.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

func (c *caller) await(t *testing.T, path string, status int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		answer, text := c.ask(t, path, "")
		if answer.StatusCode == status {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still %d after a minute, want %d: %s", path, answer.StatusCode, status, text)
		}
	}
}

func tokenOf(t *testing.T, admin *rest.Config, account string) string {
	t.Helper()
	accounts := kubernetes.NewForConfigOrDie(admin).CoreV1().ServiceAccounts("default")
	made := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}
	if _, err := accounts.Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	request, err := accounts.CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// TestOutageDoesNotDeny makes the etcd of a replica hang, so that the replica does not know whether its tokens and policy are up
// to date. It must neither accept nor refuse a token, because clients discard a token that is refused.
func TestOutageDoesNotDeny(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	gate := storagetest.NewGate(t, s.etcd.Endpoint())
	r := s.start(t, func(o *apiserver.Options) {
		o.Etcd.Servers, o.Etcd.MaxLag = []string{"http://" + gate.Addr().String()}, 2*time.Second
	})
	token := tokenOf(t, r.admin, "app")
	forged := token[:len(token)-8] + "AAAAAAAA"
	app, nobody, admin := callerBy(t, r.anonymous, token, nil), callerBy(t, r.anonymous, "", nil), callerBy(t, r.admin, "", nil)
	asApp := callerBy(t, r.admin, "", http.Header{"Impersonate-User": {"system:serviceaccount:default:app"}})
	asOther := callerBy(t, r.anonymous, token, http.Header{"Impersonate-User": {"other"}})
	app.await(t, "/api", http.StatusOK)
	gate.Hang(true)
	app.await(t, "/api", http.StatusServiceUnavailable)

	const reviews, access = "/apis/authentication.k8s.io/v1/tokenreviews", "/apis/authorization.k8s.io/v1/"
	review := func(token string) string {
		return `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"` + token + `"}}`
	}
	may := func(kind, spec string) string {
		return `{"apiVersion":"authorization.k8s.io/v1","kind":"` + kind + `","spec":` + spec + `}`
	}
	const action = `"resourceAttributes":{"verb":"get","resource":"pods","namespace":"default"}`
	for _, test := range []struct {
		name       string
		by         *caller
		path, body string
		want       int
		answer     string
	}{
		{"a token", app, "/api", "", 503, ""},
		{"a token, for health", app, "/livez", "", 503, ""},
		{"a bootstrap token", callerBy(t, r.anonymous, "abcdef.0123456789abcdef", nil), "/api", "", 503, ""},
		{"a forged token", callerBy(t, r.anonymous, forged, nil), "/api", "", 401, "Unauthorized"},
		{"no token at all", callerBy(t, r.anonymous, "junk", nil), "/api", "", 401, "Unauthorized"},
		{"anonymous", nobody, "/api", "", 503, ""},
		{"anonymous, for liveness", nobody, "/livez", "", 200, "ok"},
		{"anonymous, for readiness", nobody, "/readyz", "", 500, "[-]storage-watch failed"},
		{"the administrator", admin, "/api", "", 200, "APIVersions"},
		{"the administrator as an account", asApp, "/api", "", 503, ""},
		{"an account as another", asOther, "/api", "", 503, ""},
		{"a review of the token", admin, reviews, review(token), 503, ""},
		{"a review of a forged token", admin, reviews, review(forged), 201, `"error":"invalid signature`},
		{"may an account", admin, access + "subjectaccessreviews", may("SubjectAccessReview", `{"user":"u",`+action+`}`), 503, ""},
		{"may an account, here", admin, access + "namespaces/default/localsubjectaccessreviews", may("LocalSubjectAccessReview", `{"user":"u",`+action+`}`), 503, ""},
		{"may I", asApp, access + "selfsubjectaccessreviews", may("SelfSubjectAccessReview", `{`+action+`}`), 503, ""},
		{"may the administrator", admin, access + "selfsubjectaccessreviews", may("SelfSubjectAccessReview", `{`+action+`}`), 201, `"allowed":true`},
		{"what may the administrator", admin, access + "selfsubjectrulesreviews", may("SelfSubjectRulesReview", `{"namespace":"default"}`), 503, ""},
	} {
		answer, text := test.by.ask(t, test.path, test.body)
		for deadline := time.Now().Add(20 * time.Second); test.want == 503 && answer.StatusCode != 503 && time.Now().Before(deadline); {
			answer, text = test.by.ask(t, test.path, test.body) // the feeds lose their last proof one after the other
		}
		if answer.StatusCode != test.want || !strings.Contains(text, test.answer) {
			t.Errorf("%s: %d %s, want %d %s", test.name, answer.StatusCode, text, test.want, test.answer)
			continue
		}
		if test.want != http.StatusServiceUnavailable {
			continue
		}
		var status metav1.Status
		if err := json.Unmarshal([]byte(text), &status); err != nil || status.Reason != metav1.StatusReasonServiceUnavailable {
			t.Errorf("%s: %s, which is no Status of ServiceUnavailable: %v", test.name, text, err)
		}
		if answer.Header.Get("Retry-After") != "1" {
			t.Errorf("%s: Retry-After %q", test.name, answer.Header.Get("Retry-After"))
		}
		for _, internal := range []string{"storage", "watch", "etcd", "feed", "serviceaccounts", "bindings"} {
			if strings.Contains(text, internal) {
				t.Errorf("%s: the answer contains %q: %s", test.name, internal, text)
			}
		}
	}

	// Scrapers wait ten seconds. The library would wait 20 for a first connection to etcd.
	asked := time.Now()
	answer, text := admin.ask(t, "/metrics", "")
	if took := time.Since(asked); answer.StatusCode != http.StatusOK || !strings.Contains(text, "lanyard_feed_proof_age_seconds{") || took > 15*time.Second {
		t.Errorf("/metrics: %d after %v, want 200 with the age of the proofs in time for a scraper", answer.StatusCode, took)
	}

	gate.Hang(false)
	app.await(t, "/api", http.StatusOK)
	nobody.await(t, "/readyz", http.StatusOK)
}

// TestShutdownDelay stops a server. It is not ready from then on, and serves until the delay is over.
func TestShutdownDelay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.start(t, func(o *apiserver.Options) { o.ShutdownDelay = 3 * time.Second })
	app, nobody := callerBy(t, r.anonymous, tokenOf(t, r.admin, "app"), nil), callerBy(t, r.anonymous, "", nil)
	changes, err := kubernetes.NewForConfigOrDie(r.admin).CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Stop()
	r.stop()
	nobody.await(t, "/readyz", http.StatusInternalServerError)
	for _, path := range []string{"/api", "/livez"} {
		if answer, text := app.ask(t, path, ""); answer.StatusCode != http.StatusOK {
			t.Errorf("%s while the stop is delayed: %d %s", path, answer.StatusCode, text)
		}
	}
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "late"}}
	if _, err := kubernetes.NewForConfigOrDie(r.admin).CoreV1().ConfigMaps("default").Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for event := range changes.ResultChan() {
		if object, ok := event.Object.(*corev1.ConfigMap); ok && object.Name == "late" {
			break
		}
	}
	select {
	case <-r.done:
	case <-time.After(time.Minute):
		t.Error("the server does not stop after the delay")
	}
}
