package limits

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"lanyard.dev/internal/apiserver/api"
)

var (
	jane  = &user.DefaultInfo{Name: "jane", Groups: []string{user.AllAuthenticated}}
	admin = &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
	node  = &user.DefaultInfo{Name: "system:node:n", Groups: []string{user.NodesGroup, user.AllAuthenticated}}
	none  = &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
)

// server is a limiter in front of a handler that reads the body, sends to in, and waits.
type server struct {
	handler http.Handler
	in      chan struct{}
	wait    chan struct{}
}

func newServer() *server {
	s := &server{in: make(chan struct{}, 1000), wait: make(chan struct{})}
	limiter := NewRequestLimiter(RequestConfig{
		Reads: 16, Writes: 8, Streams: 8, BodyBytes: 8 << 20, MaxBodyBytes: 3 << 20,
		Unstored:    api.All().Unstored(),
		LongRunning: func(_ *http.Request, info *request.RequestInfo) bool { return info.Verb == "watch" },
		Serializer:  serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion(),
	})
	s.handler = limiter.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		s.in <- struct{}{}
		<-s.wait
	}))
	return s
}

func (s *server) request(u user.Info, method, path string, body io.Reader) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, body)
	resolver := &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	info, err := resolver.NewRequestInfo(r)
	if err != nil {
		panic(err)
	}
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), u)
	response := httptest.NewRecorder()
	s.handler.ServeHTTP(response, r.WithContext(ctx))
	return response
}

// hold sends requests until one is refused, and returns how many are in flight.
func (s *server) hold(t *testing.T, u user.Info, method, path string, body func() io.Reader) (held int) {
	t.Helper()
	for held < 100 {
		done := make(chan *httptest.ResponseRecorder, 1)
		go func() { done <- s.request(u, method, path, body()) }()
		select {
		case <-s.in:
			held++
		case got := <-done:
			if got.Code != http.StatusTooManyRequests || got.Header().Get("Retry-After") != "1" {
				t.Fatalf("refused with %d, Retry-After %q: %s", got.Code, got.Header().Get("Retry-After"), got.Body)
			}
			return held
		}
	}
	return held
}

func empty() io.Reader { return http.NoBody }

const (
	configMaps = "/api/v1/namespaces/ns/configmaps"
	leases     = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
	reviews    = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	token      = "/api/v1/namespaces/ns/serviceaccounts/a/token"
)

// TestPlaces checks how many requests of each kind one caller can have in flight.
func TestPlaces(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		caller user.Info
		method string
		path   string
		want   int
	}{
		"writes":         {jane, "POST", configMaps, 3},
		"reads":          {jane, "GET", configMaps, 6},
		"watches":        {jane, "GET", configMaps + "?watch=true", 3},
		"anonymous":      {none, "GET", "/version", 6},
		"Leases":         {jane, "PUT", leases + "/l", 4},
		"token requests": {jane, "POST", token, 4},
		"a node":         {node, "POST", configMaps, 4},
		"administrators": {admin, "POST", configMaps, 100},
		"health":         {none, "GET", "/readyz", 100},
		"a single check": {none, "GET", "/livez/ping", 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer()
			defer close(s.wait)
			if got := s.hold(t, tt.caller, tt.method, tt.path, empty); got != tt.want {
				t.Errorf("holds %d places, want %d", got, tt.want)
			}
		})
	}
}

// TestBodyBytes checks that large bodies of one caller leave room for other callers.
func TestBodyBytes(t *testing.T) {
	t.Parallel()
	s := newServer()
	defer close(s.wait)
	big := func() io.Reader { return bytes.NewReader(make([]byte, 2<<20)) }
	if got := s.hold(t, jane, "POST", configMaps, big); got != 2 {
		t.Errorf("one caller holds %d bodies of 2 MiB, want 2 of the 3 that common requests may have", got)
	}
	if got := s.hold(t, jane, "POST", configMaps, empty); got != 1 {
		t.Errorf("in addition the caller holds %d small requests, want 1, the third of its places", got)
	}
	if got := s.hold(t, &user.DefaultInfo{Name: "joe"}, "POST", configMaps, empty); got == 0 {
		t.Error("there is no room for a small request")
	}
}

// TestBodyLimits checks the largest body of each kind of request, with and without a Content-Length.
func TestBodyLimits(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method, path string
		limit        int
	}{
		"stored":        {"POST", configMaps, 3 << 20},
		"updated":       {"PUT", leases + "/l", 3 << 20},
		"patched":       {"PATCH", configMaps + "/c", 3 << 20},
		"review":        {"POST", reviews, 64 << 10},
		"token review":  {"POST", "/apis/authentication.k8s.io/v1/tokenreviews", 64 << 10},
		"token request": {"POST", token, 64 << 10},
		"deletion":      {"DELETE", configMaps + "/c", 64 << 10},
		"collection":    {"DELETE", configMaps, 64 << 10},
		"binding":       {"POST", "/api/v1/namespaces/ns/pods/p/binding", 64 << 10},
		"eviction":      {"POST", "/api/v1/namespaces/ns/pods/p/eviction", 64 << 10},
		"no resource":   {"POST", "/version", 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer()
			close(s.wait)
			for size, want := range map[int]int{tt.limit: http.StatusOK, tt.limit + 1: http.StatusRequestEntityTooLarge} {
				if got := s.request(admin, tt.method, tt.path, bytes.NewReader(make([]byte, size))); got.Code != want {
					t.Errorf("%d bytes: %d %s, want %d", size, got.Code, got.Body, want)
				}
				unknown := struct{ io.Reader }{strings.NewReader(strings.Repeat("x", size))} // no length in the header
				if got := s.request(admin, tt.method, tt.path, unknown); got.Code != want {
					t.Errorf("%d bytes, length unknown: %d %s, want %d", size, got.Code, got.Body, want)
				}
			}
		})
	}
}

// TestBodySize checks how many bytes are reserved for a body.
func TestBodySize(t *testing.T) {
	t.Parallel()
	l := NewRequestLimiter(RequestConfig{MaxBodyBytes: 3 << 20, Unstored: api.All().Unstored()})
	stored := &request.RequestInfo{IsResourceRequest: true}
	review := &request.RequestInfo{IsResourceRequest: true, APIGroup: "authorization.k8s.io", Resource: "subjectaccessreviews"}
	for _, tt := range []struct {
		info         *request.RequestInfo
		length, want int64
	}{
		{stored, 0, 0}, {stored, SmallBody, 0}, {stored, SmallBody + 1, SmallBody + 1}, {stored, -1, 3 << 20}, {review, -1, 0},
	} {
		if got := l.bodySize(&http.Request{ContentLength: tt.length}, tt.info); got != tt.want {
			t.Errorf("a body of length %d in group %q takes %d bytes, want %d", tt.length, tt.info.APIGroup, got, tt.want)
		}
	}
}

// TestClassOf checks the class of requests.
func TestClassOf(t *testing.T) {
	t.Parallel()
	const leaseGroup = "coordination.k8s.io"
	for _, tt := range []struct {
		caller user.Info
		info   request.RequestInfo
		want   Class
	}{
		{jane, request.RequestInfo{APIGroup: leaseGroup, Resource: "leases"}, Vital},
		{jane, request.RequestInfo{APIGroup: leaseGroup, Resource: "leasecandidates"}, Common},
		{jane, request.RequestInfo{APIGroup: "example.com", Resource: "leases"}, Common},
		{jane, request.RequestInfo{Resource: "serviceaccounts", Subresource: "token"}, Vital},
		{jane, request.RequestInfo{Resource: "serviceaccounts"}, Common},
		{jane, request.RequestInfo{Resource: "pods", Subresource: "token"}, Common},
		{node, request.RequestInfo{Resource: "pods"}, Node},
		{node, request.RequestInfo{APIGroup: leaseGroup, Resource: "leases"}, Node},
	} {
		if got := classOf(tt.caller, &tt.info); got != tt.want {
			t.Errorf("%s, %s/%s/%s: class %d, want %d", tt.caller.GetName(), tt.info.APIGroup, tt.info.Resource, tt.info.Subresource, got, tt.want)
		}
	}
}

// TestRequestWithoutContext checks that a request without a user or request info is not served.
func TestRequestWithoutContext(t *testing.T) {
	t.Parallel()
	s := newServer()
	close(s.wait)
	plain := httptest.NewRequest("GET", configMaps, nil)
	for name, ctx := range map[string]context.Context{
		"no request info": request.WithUser(plain.Context(), jane),
		"no user":         request.WithRequestInfo(plain.Context(), &request.RequestInfo{Verb: "get"}),
	} {
		response := httptest.NewRecorder()
		s.handler.ServeHTTP(response, plain.WithContext(ctx))
		if response.Code != http.StatusInternalServerError || len(s.in) != 0 {
			t.Errorf("%s: %d, and %d requests are served", name, response.Code, len(s.in))
		}
	}
}
