package apiserver

import (
	"context"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericfilters "k8s.io/apiserver/pkg/server/filters"

	"lanyard.dev/internal/nodeaccess"
)

// longRunning returns a check for watches and sessions, for which there is no deadline and no limit on requests in flight.
// sessions are the subresources of pods that are sessions with a node. A session lasts until one of its two ends closes it.
func longRunning(sessions []string) request.LongRunningRequestCheck {
	return genericfilters.BasicLongRunningRequestCheck(sets.NewString("watch"), sets.NewString(sessions...))
}

// stopSignal is closed when the server begins to stop.
type stopSignal chan struct{}

// ShuttingDown implements request.ServerShutdownSignal.
func (s stopSignal) ShuttingDown() <-chan struct{} { return s }

// endSessions ends sessions when the server stops, since the drain does not wait for them. A log that is not followed
// may be read to its end in the time that the drain takes.
func endSessions(api http.Handler, sessions []string, stopping stopSignal) http.Handler {
	subresources := sets.New(sessions...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if !ok || info.Resource != "pods" || !subresources.Has(info.Subresource) || info.Subresource == "log" && !follows(r) {
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

// follows reports whether a log is to be followed. As in the API, a parameter without a value is true.
func follows(r *http.Request) bool {
	values := r.URL.Query()["follow"]
	return len(values) > 0 && values[0] != "0" && !strings.EqualFold(values[0], "false")
}

// endWatches ends watches when the server stops. Otherwise the drain would wait for them until its time is over.
func endWatches(api http.Handler, stopping stopSignal) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if info, ok := request.RequestInfoFrom(r.Context()); ok && info.Verb == "watch" {
			r = r.WithContext(request.WithServerShutdownSignal(r.Context(), stopping))
		}
		api.ServeHTTP(w, r)
	})
}

// endEvicted ends the watches of a node when it is evicted. Otherwise a holder of its certificate could go on reading.
func endEvicted(api http.Handler, evictions *nodeaccess.Evictions) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		info, ok := request.RequestInfoFrom(ctx)
		if !ok || info.Verb != "watch" {
			api.ServeHTTP(w, r)
			return
		}
		who, ok := request.UserFrom(ctx)
		if !ok {
			api.ServeHTTP(w, r)
			return
		}
		name, groups, notBefore := who.GetName(), who.GetGroups(), who.GetExtra()[nodeaccess.ExtraNotBefore]
		if node, ok := nodeaccess.Identify(name, groups); ok && len(notBefore) > 0 {
			evicted, end := context.WithCancel(ctx)
			defer end()
			defer evictions.OnEviction(node, end)()
			if evictions.AdmitsUser(name, groups, notBefore) != nil {
				end() // the node was evicted after the request was authenticated
			}
			r = r.WithContext(evicted)
		}
		api.ServeHTTP(w, r)
	})
}
