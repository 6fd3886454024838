// Promise: thousands of clients and oversized requests leave the server answering. The benchmarks of requests are here too.

package systemtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/token"
	"lanyard.dev/lanyardtest"
)

// loadClients are many clients over fewer connections: several clients share each HTTP/2 connection, and each other client
// has an HTTP/1.1 connection. The Go runtime has raised the limit of open files to the maximum of this user.
type loadClients struct {
	url, namespace, token string
	clients               []*http.Client
	answered, turnedAway  atomic.Int64
}

func newLoadClients(t *testing.T, a *lanyardtest.Authority, shared, perConnection, alone int) *loadClients {
	t.Helper()
	config, err := rest.TLSConfigFor(rest.AnonymousClientConfig(a.Config()))
	if err != nil {
		t.Fatal(err)
	}
	c := &loadClients{url: a.URL(), namespace: a.Namespace(t)}
	a.CreateServiceAccount(t, c.namespace, "one-of-many")
	a.Grant(t, c.namespace, "one-of-many", readConfigMaps, rbacRule("", "serviceaccounts/token", "create"))
	c.token = a.Token(t, c.namespace, "one-of-many")
	add := func(transport *http.Transport, clients int) {
		t.Cleanup(transport.CloseIdleConnections)
		for range clients {
			c.clients = append(c.clients, &http.Client{Transport: transport})
		}
	}
	for range shared {
		add(&http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}, perConnection)
	}
	for range alone {
		add(&http.Transport{TLSClientConfig: config.Clone(), TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}, 1)
	}
	return c
}

// request sends a request. An answer other than a success or 429 is an error.
func (c *loadClients) request(ctx context.Context, client *http.Client, method, path, body string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	switch response.StatusCode {
	case http.StatusOK, http.StatusCreated:
		c.answered.Add(1)
		return response, nil
	case http.StatusTooManyRequests:
		c.turnedAway.Add(1)
		return response, nil
	}
	text, _ := io.ReadAll(response.Body)
	return nil, errors.Join(fmt.Errorf("%s %s: %s %s", method, path, response.Status, text), response.Body.Close())
}

// exchange sends a request and reads the answer to its end.
func (c *loadClients) exchange(ctx context.Context, client *http.Client, method, path, body string) error {
	response, err := c.request(ctx, client, method, path, body)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}

// watchUntil opens a watch, calls opened, and reads until an event contains the text.
func (c *loadClients) watchUntil(ctx context.Context, client *http.Client, text string, opened func()) error {
	response, err := c.request(ctx, client, http.MethodGet, "/api/v1/namespaces/"+c.namespace+"/configmaps?watch=true", "")
	if err != nil {
		return err
	}
	opened()
	defer func() { _ = response.Body.Close() }()
	for lines := bufio.NewReader(response.Body); ; {
		line, err := lines.ReadString('\n')
		if strings.Contains(line, text) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch ended early: %w", err)
		}
	}
}

// each calls do with every client at the same time, and returns a few of the errors.
func (c *loadClients) each(do func(*http.Client) error) error {
	var working sync.WaitGroup
	failed := make(chan error, len(c.clients))
	for _, client := range c.clients {
		working.Go(func() {
			if err := do(client); err != nil {
				failed <- err
			}
		})
	}
	working.Wait()
	close(failed)
	var some []error
	for err := range failed {
		if some = append(some, err); len(some) == 3 {
			return errors.Join(append(some, fmt.Errorf("and %d more", len(failed)))...)
		}
	}
	return errors.Join(some...)
}

func TestTwoThousandClients(t *testing.T) {
	a := lanyardtest.Start(t)
	shared, perConnection, alone := 200, 8, 400
	if testing.Short() {
		shared, alone = 40, 80
	}
	c := newLoadClients(t, a, shared, perConnection, alone)
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	// Connections without a request must not keep other clients out.
	for range 100 {
		idle, err := net.Dial("tcp", strings.TrimPrefix(a.URL(), "https://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = idle.Close() }()
	}
	err := c.each(func(client *http.Client) error {
		for range 2 {
			if err := c.exchange(ctx, client, http.MethodGet, "/api/v1/namespaces/"+c.namespace+"/configmaps/"+rootCAMap, ""); err != nil {
				return err
			}
			if err := c.exchange(ctx, client, http.MethodPost, "/api/v1/namespaces/"+c.namespace+"/serviceaccounts/one-of-many/token", `{}`); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("requests: %v", err)
	}
	c.watchTogether(ctx, t, a)
	t.Logf("%d clients: %d requests answered, %d turned away", len(c.clients), c.answered.Load(), c.turnedAway.Load())
	if answered, away := c.answered.Load(), c.turnedAway.Load(); away > answered {
		t.Errorf("%d requests answered, %d turned away", answered, away)
	}
	if got := bearer(t, a.Config(), "").get(t, "/readyz"); got.code != http.StatusOK {
		t.Errorf("after the load: %s", got)
	}
	if got := bearer(t, a.Config(), c.token).get(t, "/api/v1/namespaces/"+c.namespace+"/configmaps"); got.code != http.StatusOK {
		t.Errorf("after the load: %s", got)
	}
}

// watchTogether opens a watch for every client, and then creates one object that all watches must report.
func (c *loadClients) watchTogether(ctx context.Context, t *testing.T, a *lanyardtest.Authority) {
	t.Helper()
	var opened sync.WaitGroup
	opened.Add(len(c.clients))
	made := make(chan error, 1)
	go func() {
		opened.Wait()
		note := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "to-everybody"}}
		_, err := a.Client().CoreV1().ConfigMaps(c.namespace).Create(ctx, note, metav1.CreateOptions{})
		made <- err
	}()
	err := c.each(func(client *http.Client) error {
		var once sync.Once
		done := func() { once.Do(opened.Done) }
		defer done()
		return c.watchUntil(ctx, client, "to-everybody", done)
	})
	if err := errors.Join(err, <-made); err != nil {
		t.Errorf("watches: %v", err)
	}
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace, admin := a.Namespace(t), callerFor(t, a.Config())
	configMap := func(size int) []byte {
		return []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"big"},"data":{"k":"` + strings.Repeat("x", size) + `"}}`)
	}
	manyRules := func(rules int) []byte {
		rule := `{"apiGroups":[""],"resources":["` + strings.Repeat("x", 1000) + `"],"verbs":["get"]}`
		return []byte(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"big"},"rules":[` + strings.TrimSuffix(strings.Repeat(rule+",", rules), ",") + `]}`)
	}
	longPod := func(size int) []byte {
		return []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"big"},"spec":{"containers":[{"name":"c","image":"i","args":["` + strings.Repeat("x", size) + `"]}]}}`)
	}
	core, rbac := "/api/v1/namespaces/"+namespace, "/apis/rbac.authorization.k8s.io/v1/namespaces/"+namespace
	for name, tt := range map[string]struct {
		path string
		body []byte
		code int
		text string
	}{
		"config map over 1 MiB":          {core + "/configmaps", configMap(1<<20 + 1), http.StatusUnprocessableEntity, "may not be more than 1048576 bytes"},
		"config map of 1.5 MiB":          {core + "/configmaps", configMap(3 << 19), http.StatusUnprocessableEntity, "may not be more than 1048576 bytes"},
		"config map over 3 MiB":          {core + "/configmaps", configMap(3<<20 + 1), http.StatusRequestEntityTooLarge, "limit is 3145728"},
		"role of 2 MiB":                  {rbac + "/roles", manyRules(2000), http.StatusUnprocessableEntity, "rules: Too long: may not be more than 1441792 bytes"},
		"pod of 2 MiB, more than etcd's": {core + "/pods", longPod(2 << 20), http.StatusRequestEntityTooLarge, "too large"},
		"token request over 64 KiB":      {core + "/serviceaccounts/default/token", configMap(64 << 10), http.StatusRequestEntityTooLarge, "limit is 65536"},
		"review over 64 KiB":             {"/apis/authentication.k8s.io/v1/tokenreviews", configMap(64 << 10), http.StatusRequestEntityTooLarge, "limit is 65536"},
		"20 MiB":                         {core + "/configmaps", configMap(20 << 20), http.StatusRequestEntityTooLarge, "limit is 3145728"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := admin.do(t, http.MethodPost, tt.path, tt.body); got.code != tt.code || !strings.Contains(got.status(t).Message, tt.text) {
				t.Errorf("%.400s, want %d with %q", got, tt.code, tt.text)
			}
		})
	}
}

// TestEndlessBody sends bodies without an end. The server stops reading at its limit.
func TestEndlessBody(t *testing.T) {
	t.Parallel()
	a := authority(t)
	admin := callerFor(t, a.Config())
	for _, path := range []string{"/api/v1/namespaces", whoAmIPath} {
		endless := io.MultiReader(strings.NewReader(`{"metadata":{"name":"`), zeros{})
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.URL()+path, endless)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := admin.client.Do(request)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if response.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %s", path, response.Status)
		}
		_ = response.Body.Close()
	}
}

// zeros is a reader without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	copy(p, bytes.Repeat([]byte("0"), len(p)))
	return len(p), nil
}

func TestLargeHeaders(t *testing.T) {
	t.Parallel()
	a := authority(t)
	many := func(n, size int) []string {
		var headers []string
		for i := range n {
			headers = append(headers, fmt.Sprintf("X-%d", i), strings.Repeat("x", size))
		}
		return headers
	}
	refused := http.StatusRequestHeaderFieldsTooLarge
	for name, tt := range map[string]struct {
		headers []string
		code    int
	}{
		"token of 20 KB":           {[]string{"Authorization", "Bearer " + strings.Repeat("x", 20_000)}, http.StatusUnauthorized},
		"token of 900 KB":          {[]string{"Authorization", "Bearer " + strings.Repeat("x", 900_000)}, http.StatusUnauthorized},
		"token of 10 MB":           {[]string{"Authorization", "Bearer " + strings.Repeat("x", 10_000_000)}, refused},
		"thousands of headers":     {many(5000, 10), http.StatusOK},
		"too many headers":         {many(50_000, 100), refused},
		"one long header":          {[]string{"X-Long", strings.Repeat("x", 10_000_000)}, refused},
		"thousands of groups":      {append(many(0, 0), "Impersonate-User", strings.Repeat("x", 100_000)), http.StatusForbidden},
		"another scheme":           {[]string{"Authorization", "Basic eDp4"}, http.StatusUnauthorized},
		"a bearer without a token": {[]string{"Authorization", "Bearer "}, http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			got, err := overHTTP1(t, a.Config()).try(t.Context(), http.MethodGet, "/version", nil, tt.headers...)
			// A server that refuses may close the connection while the client still sends.
			if err != nil && tt.code == refused && time.Since(started) < 10*time.Second {
				return
			}
			if took := time.Since(started); err != nil || got.code != tt.code || took > 10*time.Second {
				t.Errorf("%.300s after %v (%v), want %d", got, took, err, tt.code)
			}
		})
	}
}

// The benchmarks measure the round trip over HTTPS on one connection, client and server together.

const reviewPath = "/apis/authentication.k8s.io/v1/tokenreviews"

// benchmarkPost sends a POST request in each iteration, with the body that next returns.
func benchmarkPost(b *testing.B, c *caller, path string, next func(i int) []byte) {
	b.Helper()
	c.must(b, http.MethodPost, path, next(0))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if got := c.do(b, http.MethodPost, path, next(i)); got.code != http.StatusCreated {
			b.Fatal(got)
		}
	}
}

// benchmarkAccount returns an account with the rights that the benchmarks need.
func benchmarkAccount(b *testing.B) (a *lanyardtest.Authority, namespace string, holder *caller) {
	b.Helper()
	a = authority(b)
	namespace = a.Namespace(b)
	a.CreateServiceAccount(b, namespace, "benched")
	a.Grant(b, namespace, "benched", readConfigMaps, rbacRule("", "serviceaccounts/token", "create"))
	return a, namespace, bearer(b, a.Config(), a.Token(b, namespace, "benched"))
}

func BenchmarkTokenRequest(b *testing.B) {
	_, namespace, holder := benchmarkAccount(b)
	body := []byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"expirationSeconds":3600}}`)
	benchmarkPost(b, holder, "/api/v1/namespaces/"+namespace+"/serviceaccounts/benched/token", func(int) []byte { return body })
}

func reviewOf(b *testing.B, text string) []byte {
	return encode(b, authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text}})
}

func BenchmarkTokenReviewHot(b *testing.B) {
	a, namespace, _ := benchmarkAccount(b)
	body := reviewOf(b, a.Token(b, namespace, "benched"))
	benchmarkPost(b, callerFor(b, a.Config()), reviewPath, func(int) []byte { return body })
}

// BenchmarkTokenReviewCold reviews more tokens in turn than the verifier caches.
func BenchmarkTokenReviewCold(b *testing.B) {
	a := forgeable(b)
	f := forgerAt(b, a, a.Namespace(b), "benched")
	bodies := make([][]byte, 2*token.DefaultCacheSize)
	for i := range bodies {
		bodies[i] = reviewOf(b, f.issued(0))
	}
	benchmarkPost(b, callerFor(b, a.Config()), reviewPath, func(i int) []byte { return bodies[i%len(bodies)] })
}

func BenchmarkAuthenticatedGet(b *testing.B) {
	_, namespace, holder := benchmarkAccount(b)
	path := "/api/v1/namespaces/" + namespace + "/configmaps/" + rootCAMap
	holder.must(b, http.MethodGet, path, nil)
	b.ReportAllocs()
	for b.Loop() {
		if got := holder.get(b, path); got.code != http.StatusOK {
			b.Fatal(got)
		}
	}
}

func BenchmarkSubjectAccessReview(b *testing.B) {
	a, namespace, _ := benchmarkAccount(b)
	body := encode(b, authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + namespace + ":benched",
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "get", Resource: "configmaps"},
	}})
	benchmarkPost(b, callerFor(b, a.Config()), "/apis/authorization.k8s.io/v1/subjectaccessreviews", func(int) []byte { return body })
}
