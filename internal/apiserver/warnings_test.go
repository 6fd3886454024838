package apiserver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/apiserver/pkg/warning"
)

func answerTo(t *testing.T, h http.HandlerFunc) *httptest.ResponseRecorder {
	t.Helper()
	answer := httptest.NewRecorder()
	withWarnings(h).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	return answer
}

func TestWarningsReachTheHeaders(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(http.ResponseWriter){
		"by status": func(w http.ResponseWriter) { w.WriteHeader(http.StatusCreated) },
		"by body":   func(w http.ResponseWriter) { _, _ = w.Write([]byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := answerTo(t, func(w http.ResponseWriter, r *http.Request) {
				warning.AddWarning(r.Context(), "", "first")
				warning.AddWarning(r.Context(), "", "second")
				warning.AddWarning(r.Context(), "", "first")
				warning.AddWarning(r.Context(), "", "")
				begin(w)
				warning.AddWarning(r.Context(), "", "too late")
			})
			want := []string{`299 - "first"`, `299 - "second"`}
			if got := answer.Header().Values("Warning"); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestWarningsAreBounded(t *testing.T) {
	t.Parallel()
	answer := answerTo(t, func(w http.ResponseWriter, r *http.Request) {
		warning.AddWarning(r.Context(), "", strings.Repeat("long ", 10_000))
		for i := range 10_000 {
			warning.AddWarning(r.Context(), "", fmt.Sprint("number ", i))
		}
		w.WriteHeader(http.StatusOK)
	})
	if n := len(answer.Header().Values("Warning")); n != maxWarnings {
		t.Errorf("got %d warnings, want %d", n, maxWarnings)
	}
}

// TestLateWarningsAreDropped records warnings while the answer is written, and after. The race detector checks it.
func TestLateWarningsAreDropped(t *testing.T) {
	t.Parallel()
	var late sync.WaitGroup
	answerTo(t, func(w http.ResponseWriter, r *http.Request) {
		late.Go(func() {
			for i := range 1000 {
				warning.AddWarning(r.Context(), "", fmt.Sprint("late ", i))
			}
		})
		for i := range 100 {
			w.Header().Set(fmt.Sprint("X-", i), "v")
		}
		w.WriteHeader(http.StatusGatewayTimeout)
		for i := range 100 {
			w.Header().Set(fmt.Sprint("Y-", i), "v")
		}
	})
	late.Wait()
}
