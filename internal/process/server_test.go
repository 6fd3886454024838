package process

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// TestProbe checks that a probe authenticates with the token only, never with the caller's credentials.
func TestProbe(t *testing.T) {
	t.Parallel()
	const token = "a.secret.token"
	answer := make(chan int, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer "+token || r.URL.Path != "/base/version" || r.TLS.PeerCertificates != nil {
			t.Errorf("%s with %q", r.URL, got)
		}
		w.WriteHeader(<-answer)
		fmt.Fprint(w, strings.Repeat("x", 2*maxAnswer))
	}))
	defer server.Close()
	config := &rest.Config{Host: server.URL + "/base", BearerToken: "the caller's", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	probe, err := NewProbe(config)
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[int]string{200: "true", 403: "true", 404: "true", 401: "false", 429: "no answer", 500: "no answer", 503: "no answer"} {
		answer <- code
		accepted, err := probe(t.Context(), token)
		got := fmt.Sprint(accepted)
		if err != nil {
			got = "no answer"
		}
		if got != want || err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("%d: %s, %v; want %s", code, got, err, want)
		}
	}
	server.Close()
	if _, err := probe(t.Context(), token); err == nil || strings.Contains(err.Error(), token) {
		t.Errorf("a server that does not answer: %v", err)
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	for host, want := range map[string][]string{
		"https://[::1]:6443": {"::1", "6443"}, "https://api.example": {"api.example", "443"}, "https://127.0.0.1:7443/": {"127.0.0.1", "7443"},
		"https://api.example/cluster/a": nil,
	} {
		server, err := ServerOf(&rest.Config{Host: host})
		if err != nil {
			t.Fatal(err)
		}
		got, err := server.environment()
		if (err != nil) != (want == nil) {
			t.Errorf("%s: %v, %v", host, got, err)
		}
		if want != nil && !slices.Equal(got, []string{serviceHost + "=" + want[0], servicePort + "=" + want[1], servicePortHTTPS + "=" + want[1]}) {
			t.Errorf("%s: %v", host, got)
		}
	}
	if _, err := ServerOf(&rest.Config{Host: "http://api.example"}); err == nil {
		t.Error("a server without TLS is accepted")
	}
}
