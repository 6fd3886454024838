package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics"

	"lanyard.dev/internal/node/server"
	"lanyard.dev/internal/pki"
)

// reviews gives the same answer to every review, and records the reviews.
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

// fakeTokens are the valid tokens and their users.
type fakeTokens map[string]authenticationv1.UserInfo

var errAway = errors.New("away")

func (o fakeTokens) Create(_ context.Context, review *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	if review.Spec.Token == "outage" {
		return nil, errAway
	}
	if len(review.Spec.Audiences) > 0 {
		return nil, errors.New("audiences were named")
	}
	review.Status.User, review.Status.Authenticated = o[review.Spec.Token], o[review.Spec.Token].Username != ""
	return review, nil
}

// noRuntime panics if a request reaches it.
type noRuntime struct{ server.Runtime }

func handler(t *testing.T, r *reviews, cas *x509.CertPool) http.Handler {
	t.Helper()
	return handlerFor(t, r, fakeTokens{}, cas)
}

func handlerFor(t *testing.T, r *reviews, tokens server.TokenReviews, cas *x509.CertPool) http.Handler {
	t.Helper()
	s, err := server.New(server.Config{
		NodeName: "n", Runtime: noRuntime{}, Reviews: r, Tokens: tokens, Metrics: metrics.NewKubeRegistry(),
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
		verb, subresource string // of the review
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

func TestTokens(t *testing.T) {
	t.Parallel()
	tokens := fakeTokens{"good": {
		Username: "system:serviceaccount:monitoring:prometheus", UID: "u", Groups: []string{"system:serviceaccounts", "system:authenticated"},
		Extra: map[string]authenticationv1.ExtraValue{"authentication.kubernetes.io/credential-id": {"JTI=1"}},
	}}
	yes, no := authorizationv1.SubjectAccessReviewStatus{Allowed: true}, authorizationv1.SubjectAccessReviewStatus{}
	dir := t.TempDir()
	ca, err := pki.EnsureAuthority(filepath.Join(dir, "crt"), filepath.Join(dir, "key"), "ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.NewClient("jane", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		header []string
		shown  []*x509.Certificate // of a CA that is not trusted
		answer authorizationv1.SubjectAccessReviewStatus
		code   int
		asked  bool
	}{
		"may":                      {[]string{"Bearer good"}, nil, yes, 200, true},
		"may, in small letters":    {[]string{"bearer good"}, nil, yes, 200, true},
		"may not":                  {[]string{"Bearer good"}, nil, no, 403, true},
		"garbage":                  {[]string{"Bearer bad"}, nil, yes, 401, false},
		"authority away":           {[]string{"Bearer outage"}, nil, yes, 503, false},
		"nothing":                  {nil, nil, yes, 401, false},
		"empty":                    {[]string{"Bearer "}, nil, yes, 401, false},
		"no token":                 {[]string{"Bearer"}, nil, yes, 401, false},
		"two words":                {[]string{"Bearer good good"}, nil, yes, 401, false},
		"two spaces":               {[]string{"Bearer  good"}, nil, yes, 401, false},
		"two headers":              {[]string{"Bearer good", "Bearer good"}, nil, yes, 401, false},
		"another scheme":           {[]string{"Basic good"}, nil, yes, 401, false},
		"too long":                 {[]string{"Bearer " + strings.Repeat("a", 16<<10+1)}, nil, yes, 401, false},
		"beside a bad certificate": {[]string{"Bearer good"}, []*x509.Certificate{pair.Certificate()}, yes, 401, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
			r.Header["Authorization"] = test.header
			r.TLS = &tls.ConnectionState{PeerCertificates: test.shown}
			w := httptest.NewRecorder()
			asked := &reviews{answer: test.answer}
			handlerFor(t, asked, tokens, x509.NewCertPool()).ServeHTTP(w, r)
			if w.Code != test.code || (w.Code == 503) != (w.Header().Get("Retry-After") != "") || len(asked.asked) > 0 != test.asked {
				t.Errorf("got %d: %s; asked %+v", w.Code, w.Body, asked.asked)
			}
			if !test.asked {
				return
			}
			want := authorizationv1.SubjectAccessReviewSpec{
				User: tokens["good"].Username, UID: "u", Groups: tokens["good"].Groups,
				Extra:              map[string]authorizationv1.ExtraValue{"authentication.kubernetes.io/credential-id": {"JTI=1"}},
				ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Version: "v1", Resource: "nodes", Subresource: "metrics", Name: "n"},
			}
			if diff := cmp.Diff(want, asked.asked[0]); diff != "" {
				t.Errorf("asked (-want +got)\n%s", diff)
			}
		})
	}
}

// TestTokensOfOneAddressAreBounded checks that a client with invalid tokens can neither flood the authority nor keep
// others out.
func TestTokensOfOneAddressAreBounded(t *testing.T) {
	t.Parallel()
	h := handlerFor(t, &reviews{answer: authorizationv1.SubjectAccessReviewStatus{Allowed: true}}, fakeTokens{"good": {Username: "x"}}, x509.NewCertPool())
	ask := func(address, token string) int {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
		r.RemoteAddr = address
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	codes := map[int]int{}
	began := time.Now()
	for i := range 1000 {
		codes[ask("192.0.2.1:"+strconv.Itoa(i+1), "bad")]++
	}
	if most := 40 + int(20*time.Since(began).Seconds()) + 1; codes[401] > most || codes[429] != 1000-codes[401] {
		t.Errorf("answers %v, want at most %d reviews", codes, most)
	}
	if code := ask("192.0.2.2:1", "good"); code != 200 {
		t.Errorf("another address: %d", code)
	}
}

// slowTokens does not answer the review of the token "bad" before its context ends.
type slowTokens struct {
	fakeTokens
	asked chan struct{}
}

func (o slowTokens) Create(ctx context.Context, review *authenticationv1.TokenReview, options metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	if review.Spec.Token == "bad" {
		o.asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return o.fakeTokens.Create(ctx, review, options)
}

// TestTokensOfOneAddressLeaveRoom checks that, while the authority is slow, neither one address nor one machine's IPv6 network
// keeps others out.
func TestTokensOfOneAddressLeaveRoom(t *testing.T) {
	t.Parallel()
	for name, address := range map[string]func(int) string{
		"IPv4":            func(i int) string { return "192.0.2.1:" + strconv.Itoa(i+1) },
		"an IPv6 network": func(i int) string { return "[2001:db8::" + strconv.Itoa(i+1) + "]:1" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, end := context.WithCancel(t.Context())
			tokens := slowTokens{fakeTokens{"good": {Username: "x"}}, make(chan struct{}, 40)}
			h := handlerFor(t, &reviews{answer: authorizationv1.SubjectAccessReviewStatus{Allowed: true}}, tokens, x509.NewCertPool())
			ask := func(address, token string) int {
				r := httptest.NewRequestWithContext(ctx, "GET", "/metrics", nil)
				r.RemoteAddr = address
				r.Header.Set("Authorization", "Bearer "+token)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				return w.Code
			}
			codes := make(chan int, 40)
			for i := range cap(codes) {
				go func() { codes <- ask(address(i), "bad") }()
			}
			// Each request has either taken a slot, or is refused.
			for range cap(codes) - 4 {
				select {
				case code := <-codes:
					if code != http.StatusTooManyRequests {
						t.Errorf("refused with %d", code)
					}
				case <-time.After(time.Minute):
					t.Fatalf("%d reviews of one client are under way", len(tokens.asked))
				}
			}
			if code := ask("192.0.2.2:1", "good"); code != http.StatusOK {
				t.Errorf("another address: %d", code)
			}
			end()
			for range 4 {
				<-codes
			}
		})
	}
}

func TestNewWantsAll(t *testing.T) {
	t.Parallel()
	if _, err := server.New(server.Config{NodeName: "n"}); err == nil {
		t.Error("New accepts an incomplete Config")
	}
}
