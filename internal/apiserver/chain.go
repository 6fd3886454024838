package apiserver

import (
	"errors"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/authn"
	"lanyard.dev/internal/apiserver/limits"
	"lanyard.dev/internal/apiserver/loopback"
	"lanyard.dev/internal/apiserver/outage"
)

// wrap puts the filters around the API for requests from outside, innermost first. There are two chains, one for streams, which are
// watches and sessions, and one for all other requests. The chain is the library's chain without the filters that this server does not
// use (tracing, CORS, latency per filter, flow control by API objects) and without the library's timeout, which uses a second
// goroutine for each request. Here, the deadline in the context ends handlers, and deadlines bounds reading and writing. The
// library's timeout also keeps work that outlives the request from changing the headers; withWarnings does that here. The limits
// on requests in flight are applied after audit, so that refusals are recorded, and before impersonation, so that a caller cannot
// use the limits of other users.
//
// A filter that a request does not need is not in its chain, instead of being skipped, since each one costs stack and time.
func wrap(api http.Handler, az decider, c *genericserver.Config, limiter *limits.RequestLimiter, share shareFunc, open streamFilters) http.Handler {
	short := limiter.Wrap(withRights(api, az, c))
	short = withIdentity(short, c, c.Authentication.Authenticator)
	short = genericfilters.WithWaitGroup(short, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)

	long := withRights(open.end(api), open.record(az), c)
	long = limiter.Wrap(open.registry.Register(long))
	long = withIdentity(long, c, c.Authentication.Authenticator)
	long = open.registry.Note(long)

	h := deadlines{
		body: c.RequestTimeout, answer: c.RequestTimeout + writeGrace, longRunning: c.LongRunningFunc, share: share,
	}.wrap(withLog(short), withLog(long))
	return withInfo(h, c)
}

// wrapCalls puts the filters around the API for the calls of the server's own controllers. The calls take no place among the
// requests in flight. They must not wait for tenants, and one of them is made while a request of a user, which holds a place,
// waits for it: the creation of a namespace. Their number is bounded, since a controller makes one call at a time, and so does
// the creation of a namespace. A server that stops does not wait for these calls themselves, for the same reason; it waits for
// the request of a user that such a call is part of. They use no connection that could be slow.
func wrapCalls(api http.Handler, az decider, c *genericserver.Config) http.Handler {
	h := withRights(api, az, c)
	h = withIdentity(h, c, loopback.Authenticator{})
	return withInfo(withLog(h), c)
}

// withRights adds impersonation and authorization.
func withRights(h http.Handler, az decider, c *genericserver.Config) http.Handler {
	return withImpersonation(withAuthorization(h, az, c.Serializer), az, c.Serializer)
}

// withIdentity adds the deadline of the work, warnings, authentication and audit.
func withIdentity(h http.Handler, c *genericserver.Config, callers authenticator.Request) http.Handler {
	h = filters.WithAudit(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc)
	h = withAuthentication(h, c, callers)
	h = withWarnings(h)
	return filters.WithRequestDeadline(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
}

// withLog adds the request log and the headers that forbid caching.
func withLog(h http.Handler) http.Handler {
	return genericfilters.WithHTTPLogging(filters.WithCacheControl(h))
}

// withInfo adds what other filters depend on: the audit context, the time of arrival and the attributes of the request. It also
// recovers from panics.
func withInfo(h http.Handler, c *genericserver.Config) http.Handler {
	h = filters.WithRequestInfo(h, c.RequestInfoResolver)
	h = filters.WithRequestReceivedTimestamp(h)
	h = genericfilters.WithPanicRecovery(h, c.RequestInfoResolver)
	h = filters.WithAuditInit(h)
	return withStack(withoutCommands(h))
}

// requestStack is how much more stack a request takes, at most. Signing a token takes the most.
const requestStack = 24 << 10

// withStack makes the stack of a request large enough before the other filters run. Each request over HTTP/2 has a goroutine of
// its own, whose stack begins with a few kilobytes. When a stack is too small, Go copies all its frames to one of twice the size.
// Here the frames are few. Otherwise that would happen several times, with more frames each time.
func withStack(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		growStack(0)
		h.ServeHTTP(w, r)
	})
}

// growStack grows the stack to hold its frame, and returns. Only other arguments than 0 use the frame, since clearing it takes
// time.
//
//go:noinline
func growStack(use int) byte {
	if use == 0 {
		return 0
	}
	var frame [requestStack]byte
	frame[use] = 1
	return frame[use/2]
}

const (
	// maxStreams is how many watches and sessions with nodes there may be at a time.
	maxStreams = 10_000
	// maxBodyBytes is how much memory the larger bodies of requests in flight may take together.
	maxBodyBytes = 32 << 20
)

func newRequestLimiter(c *genericserver.Config, tables api.Tables) *limits.RequestLimiter {
	return limits.NewRequestLimiter(limits.RequestConfig{
		Reads: c.MaxRequestsInFlight, Writes: c.MaxMutatingRequestsInFlight, Streams: maxStreams,
		BodyBytes: maxBodyBytes, MaxBodyBytes: c.MaxRequestBodyBytes, Unstored: tables.Unstored(), LongRunning: c.LongRunningFunc,
		Serializer: c.Serializer,
	})
}

// withoutCommands keeps commands that run in containers out of the log, since a command may hold a password. The
// filters that log a request use its RequestURI; handlers read r.URL, which stays as it is.
func withoutCommands(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path, _, ok := strings.Cut(r.RequestURI, "?"); ok && strings.Contains(r.URL.Path, "/exec") {
			r = r.WithContext(r.Context())
			r.RequestURI = path + "?..."
		}
		h.ServeHTTP(w, r)
	})
}

func withAuthentication(h http.Handler, c *genericserver.Config, callers authenticator.Request) http.Handler {
	failed := filters.WithFailedAuthenticationAudit(unauthenticated(c.Serializer), c.AuditBackend, c.AuditPolicyRuleEvaluator)
	return filters.WithAuthentication(h, callers, failed, c.Authentication.APIAudiences, nil)
}

// unauthenticated answers a request whose credential was not accepted, without the reason: 503 if the credential cannot
// be judged now, 429 if it was not examined because of the limit on failures, else 401.
func unauthenticated(s runtime.NegotiatedSerializer) http.Handler {
	unauthorized := filters.Unauthorized(s)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reason := authn.Refusal(r.Context())
		switch undecided := outage.Of(reason); {
		case undecided != nil:
			answerUndecided(undecided, s, w, r)
		case errors.Is(reason, authn.ErrThrottled):
			err := apierrors.NewTooManyRequests("too many tokens from this address were refused, please try again later", 1)
			responsewriters.ErrorNegotiated(err, s, schema.GroupVersion{}, w, r)
		default:
			unauthorized.ServeHTTP(w, r)
		}
	})
}

// decider is an authorizer that reports beforehand whether it can decide every request of a user. *authz.Union
// implements it.
type decider interface {
	authorizer.UnconditionalAuthorizer
	Decides(user.Info) error
}

// withAuthorization refuses requests that the caller may not make. A request that cannot be decided now is answered
// with 503; the library's filter would answer with an internal error.
func withAuthorization(api http.Handler, az decider, serializer runtime.NegotiatedSerializer) http.Handler {
	decided := filters.WithAuthorization(api, az, serializer)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := request.UserFrom(r.Context())
		if az.Decides(who) == nil {
			decided.ServeHTTP(w, r)
			return
		}
		// Some requests of the user can be decided all the same.
		attributes, err := filters.GetAuthorizerAttributes(r.Context())
		if err == nil {
			_, _, err = az.Authorize(r.Context(), attributes)
		}
		if undecided := outage.Of(err); undecided != nil {
			answerUndecided(undecided, serializer, w, r)
			return
		}
		decided.ServeHTTP(w, r)
	})
}

// withImpersonation lets callers act as other users if they may. An impersonation that cannot be decided now is
// answered with 503; the library's filter would deny it.
func withImpersonation(h http.Handler, az decider, serializer runtime.NegotiatedSerializer) http.Handler {
	decided := impersonation.WithImpersonation(h, az, serializer)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if impersonates(r.Header) {
			who, _ := request.UserFrom(r.Context())
			if undecided := outage.Of(az.Decides(who)); undecided != nil {
				answerUndecided(undecided, serializer, w, r)
				return
			}
		}
		decided.ServeHTTP(w, r)
	})
}

func impersonates(header http.Header) bool {
	for name := range header {
		if strings.HasPrefix(name, "Impersonate-") {
			return true
		}
	}
	return false
}

// answerUndecided answers with 503. It annotates the audit event as the library does if a decision fails.
func answerUndecided(err *outage.Error, serializer runtime.NegotiatedSerializer, w http.ResponseWriter, r *http.Request) {
	audit.AddAuditAnnotation(r.Context(), "authorization.k8s.io/reason", "internal error")
	gv := schema.GroupVersion{Version: "v1"}
	if info, ok := request.RequestInfoFrom(r.Context()); ok && info.APIVersion != "" {
		gv = schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}
	}
	responsewriters.ErrorNegotiated(err, serializer, gv, w, r)
}
