package apiserver

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestCommandsAreNotInTheLineThatIsLogged(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"/api/v1/namespaces/ns/pods/p/exec?command=secret":     "/api/v1/namespaces/ns/pods/p/exec?...",
		"/api/v1/namespaces/ns/pods/p/%65xec?comm%61nd=secret": "/api/v1/namespaces/ns/pods/p/%65xec?...",
		"/api/v1/namespaces/ns/pods/p/exec":                    "/api/v1/namespaces/ns/pods/p/exec",
		"/api/v1/pods?limit=5":                                 "/api/v1/pods?limit=5",
	} {
		withoutCommands(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.RequestURI != want {
				t.Errorf("%s: got %s, want %s", uri, r.RequestURI, want)
			}
			if full := r.URL.RequestURI(); full != uri {
				t.Errorf("%s is served as %s", uri, full)
			}
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, uri, nil))
	}
}
