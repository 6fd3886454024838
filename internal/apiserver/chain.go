package apiserver

import (
	"context"
	"net"
	"net/http"

	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"

	"lanyard.dev/internal/apiserver/limits"
	"lanyard.dev/internal/nodeaccess"
)

// shareFunc is called with the addresses of each request that shares its connection with other requests.
type shareFunc func(local net.Addr, remote string)

// wrap puts the filters around the API, innermost first. It is the library's own chain without what this server has no
// use for (tracing, CORS, per-filter latency, flow control by API objects) and without the second goroutine per
// request that the library's timeout takes: handlers end by the deadline in their context, reading and writing by
// deadlines. What that timeout guards besides, headers that late work writes to, withWarnings does. The limits on
// requests in flight are inside of audit, which records refusals, and outside of impersonation, which would let one
// caller be many.
func wrap(api http.Handler, az decider, c *genericserver.Config, share shareFunc) http.Handler {
	h := withAuthorization(api, az, c.Serializer)
	h = withImpersonation(h, az, c.Serializer)
	h = newRequestLimiter(c).Wrap(h)
	h = filters.WithAudit(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc)
	h = withAuthentication(h, c)
	h = withWarnings(h)
	h = filters.WithRequestDeadline(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
	h = genericfilters.WithWaitGroup(h, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)
	h = filters.WithCacheControl(h)
	h = genericfilters.WithHTTPLogging(h)
	h = deadlines{body: c.RequestTimeout, answer: c.RequestTimeout + writeGrace, longRunning: c.LongRunningFunc, share: share}.wrap(h)
	h = filters.WithRequestInfo(h, c.RequestInfoResolver)
	h = filters.WithRequestReceivedTimestamp(h)
	h = genericfilters.WithPanicRecovery(h, c.RequestInfoResolver)
	h = filters.WithAuditInit(h)
	return withoutCommands(h)
}

const (
	// maxStreams is how many watches and conversations with nodes there may be.
	maxStreams = 10_000
	// maxBodyBytes is how much memory the larger bodies of requests in flight may take together.
	maxBodyBytes = 32 << 20
)

func newRequestLimiter(c *genericserver.Config) *limits.RequestLimiter {
	return limits.NewRequestLimiter(limits.RequestConfig{
		Reads: c.MaxRequestsInFlight, Writes: c.MaxMutatingRequestsInFlight, Streams: maxStreams,
		BodyBytes: maxBodyBytes, MaxBodyBytes: c.MaxRequestBodyBytes, LongRunning: c.LongRunningFunc, Serializer: c.Serializer,
	})
}

// endWatches tells the watches under way when the server is to stop. Without it they would be waited for in vain, and
// then cut off.
func endWatches(api http.Handler, stopping stopSignal) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if info, ok := request.RequestInfoFrom(r.Context()); ok && info.Verb == "watch" {
			r = r.WithContext(request.WithServerShutdownSignal(r.Context(), stopping))
		}
		api.ServeHTTP(w, r)
	})
}

// endEvicted ends the watches of a node when it is evicted: who has its certificate would go on reading by them.
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
				end() // since it was authenticated
			}
			r = r.WithContext(evicted)
		}
		api.ServeHTTP(w, r)
	})
}

// stopSignal is closed when the server is told to stop.
type stopSignal chan struct{}

// ShuttingDown implements request.ServerShutdownSignal.
func (s stopSignal) ShuttingDown() <-chan struct{} { return s }
