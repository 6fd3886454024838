package apiserver

import (
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/ephemeral"
)

// buildChain wraps the API in what every request goes through.
func (a *assembly) buildChain(api http.Handler, c *genericserver.Config) http.Handler {
	a.ephemeral = ephemeral.New(ephemeral.Config{
		Codecs: a.codecs, Scheme: a.scheme, Admission: c.AdmissionControl, MaxBodyBytes: c.MaxRequestBodyBytes,
	}, withAnswerDeadline(api, c))
	return wrap(endSessions(endWatches(a.ephemeral, a.stopping), a.stopping), c)
}

// wrap puts the filters around the API, innermost first. It is the library's own chain without what this server has no
// use for (tracing, CORS, per-filter latency, flow control by API objects) and without the second goroutine per
// request that the library's timeout takes: handlers end by the deadline in their context, reading by withBodyDeadline
// and writing by withAnswerDeadline. What that timeout guards besides, headers that late work writes to, withWarnings does.
func wrap(api http.Handler, c *genericserver.Config) http.Handler {
	h := filters.WithAuthorization(api, c.Authorization.Authorizer, c.Serializer)
	h = genericfilters.WithMaxInFlightLimit(h, c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight, func(r *http.Request, info *request.RequestInfo) bool {
		return c.LongRunningFunc(r, info) || asksForHealth(info)
	})
	h = impersonation.WithImpersonation(h, c.Authorization.Authorizer, c.Serializer)
	h = filters.WithAudit(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc)

	failed := filters.WithFailedAuthenticationAudit(filters.Unauthorized(c.Serializer), c.AuditBackend, c.AuditPolicyRuleEvaluator)
	h = filters.WithAuthentication(h, c.Authentication.Authenticator, failed, c.Authentication.APIAudiences, nil)

	h = withWarnings(h)
	h = filters.WithRequestDeadline(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
	h = genericfilters.WithWaitGroup(h, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)
	h = filters.WithCacheControl(h)
	h = genericfilters.WithHTTPLogging(h)
	h = filters.WithRequestInfo(h, c.RequestInfoResolver)
	h = filters.WithRequestReceivedTimestamp(h)
	h = genericfilters.WithPanicRecovery(h, c.RequestInfoResolver)
	h = filters.WithAuditInit(h)
	return withoutCommands(withBodyDeadline(h, c.RequestTimeout))
}

// asksForHealth picks the requests that are answered however busy the server is: one that is busy is not ill.
func asksForHealth(info *request.RequestInfo) bool {
	switch info.Path {
	case "/livez", "/readyz", "/healthz":
		return !info.IsResourceRequest
	}
	return false
}

// withBodyDeadline ends the reading of a body that does not arrive in time. The deadline in a request's context does
// not reach there, and a caller who sends a byte a minute would hold one of the places for requests under way.
func withBodyDeadline(h http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			logDeadline(http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout)))
		}
		h.ServeHTTP(w, r)
	})
}

// writeGrace is how long after its deadline a request may still be told that it failed.
const writeGrace = 5 * time.Second

// withAnswerDeadline ends the writing of an answer that nobody reads, for the same reason. Watches have all the time
// they want: a deadline that an earlier request left on the connection is taken off. Token requests and reviews, whose
// answers are too small to wait for a reader, do not come this way.
func withAnswerDeadline(h http.Handler, c *genericserver.Config) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var deadline time.Time
		if info, ok := request.RequestInfoFrom(r.Context()); !ok || !c.LongRunningFunc(r, info) {
			deadline = time.Now().Add(c.RequestTimeout + writeGrace)
		}
		logDeadline(http.NewResponseController(w).SetWriteDeadline(deadline))
		h.ServeHTTP(w, r)
	})
}

func logDeadline(err error) {
	if err != nil {
		klog.V(4).InfoS("Could not bound reading or writing a request", "err", err)
	}
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

// stopSignal is closed when the server is told to stop.
type stopSignal chan struct{}

// ShuttingDown implements request.ServerShutdownSignal.
func (s stopSignal) ShuttingDown() <-chan struct{} { return s }
