package apiserver

import (
	"context"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
)

// sessionParts are the subresources that are conversations with a node, as long as their two ends want.
var sessionParts = []string{"attach", "exec", "log", "portforward"}

// longRunning picks the requests that no deadline and no limit on requests in flight is for.
func longRunning(r *http.Request, info *request.RequestInfo) bool {
	return genericfilters.BasicLongRunningRequestCheck(sets.NewString("watch"), sets.NewString(sessionParts...))(r, info)
}

// endSessions ends the conversations with nodes when the server is to stop: nobody would wait for them. A log that is
// read to its present end is left the time there is.
func endSessions(api http.Handler, stopping stopSignal) http.Handler {
	parts := sets.New(sessionParts...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if !ok || info.Resource != "pods" || !parts.Has(info.Subresource) || info.Subresource == "log" && !follows(r) {
			api.ServeHTTP(w, r)
			return
		}
		ctx, end := context.WithCancel(r.Context())
		defer end()
		go func() {
			select {
			case <-stopping.ShuttingDown():
				end()
			case <-ctx.Done():
			}
		}()
		api.ServeHTTP(w, r.WithContext(ctx))
	})
}

// follows tells whether a log is to be followed, as the API reads parameters: one that is only named is true.
func follows(r *http.Request) bool {
	values := r.URL.Query()["follow"]
	return len(values) > 0 && values[0] != "0" && !strings.EqualFold(values[0], "false")
}

// withoutCommands keeps what is run in containers out of the log: the filters that log a request take its line as it
// came, and a command may hold a password. What is served is read from r.URL, which stays as it is.
func withoutCommands(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path, _, ok := strings.Cut(r.RequestURI, "?"); ok && strings.Contains(r.URL.Path, "/exec") {
			r = r.WithContext(r.Context())
			r.RequestURI = path + "?..."
		}
		h.ServeHTTP(w, r)
	})
}
