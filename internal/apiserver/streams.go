package apiserver

import (
	"cmp"
	"context"
	"net/http"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/streams"
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

// streamFilters are the filters of streams only.
type streamFilters struct {
	registry *streams.Registry
	// sessions are the subresources of pods that are sessions with a node.
	sessions []string
	stopping stopSignal
}

// end ends streams when the server stops.
func (f streamFilters) end(api http.Handler) http.Handler {
	return endSessions(endWatches(api, f.stopping), f.sessions, f.stopping)
}

// record returns a decider that records what it allows streams to do.
func (f streamFilters) record(az decider) decider {
	return recordingDecider{Recorder: streams.Recorder{UnconditionalAuthorizer: az}, decides: az.Decides}
}

type recordingDecider struct {
	streams.Recorder
	decides func(user.Info) error
}

// Decides implements decider.
func (d recordingDecider) Decides(who user.Info) error { return d.decides(who) }

// newStreams returns the registry of the open streams. It learns of each change that may refuse a caller, after the parts that
// decide have learned of it. So it must be made after them.
func newStreams(o *Options, s *storage, journal *issuance.Journal, p policy, i identity, m *metrics.Metrics) *streams.Registry {
	registry := streams.New(streams.Config{
		Present: i.present, Authorizer: p.authorizer, MaxLag: cmp.Or(o.Etcd.MaxLag, mirror.MaxLag), Ended: m.CountEndedStreams, Clock: clock.RealClock{},
	})
	always := func(runtime.Object) bool { return true }
	for _, resource := range []string{"roles", "rolebindings", "clusterroles", "clusterrolebindings"} {
		s.mirror.Feed(rbacv1.Resource(resource)).Listen(registry.Listener(always))
	}
	// A new Secret may evict a node, or change a bootstrap token.
	s.feed("secrets").Listen(registry.Listener(always))
	for _, resource := range []string{"serviceaccounts", "pods", "nodes"} {
		s.feed(resource).Listen(registry.Listener(isBeingDeleted))
	}
	journal.OnRevocation(registry.Wake)
	return registry
}

func isBeingDeleted(obj runtime.Object) bool {
	m, err := meta.Accessor(obj)
	return err != nil || m.GetDeletionTimestamp() != nil
}

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
