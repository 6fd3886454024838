package apiserver

import (
	"errors"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericserver "k8s.io/apiserver/pkg/server"

	"lanyard.dev/internal/apiserver/authn"
	"lanyard.dev/internal/apiserver/outage"
)

// withAuthentication identifies the caller.
func withAuthentication(h http.Handler, c *genericserver.Config) http.Handler {
	failed := filters.WithFailedAuthenticationAudit(refused(c.Serializer), c.AuditBackend, c.AuditPolicyRuleEvaluator)
	return filters.WithAuthentication(h, c.Authentication.Authenticator, failed, c.Authentication.APIAudiences, nil)
}

// refused answers a request whose credential was not accepted, without the reason: 503 where nothing can be said about it
// now, 429 where it was not looked at, else 401.
func refused(s runtime.NegotiatedSerializer) http.Handler {
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

// decider decides requests, and tells beforehand whether it can decide all those of a user. *authz.Union is one.
type decider interface {
	authorizer.UnconditionalAuthorizer
	Decides(user.Info) error
}

// withAuthorization lets through what the caller may do. A request that cannot be decided now is answered with 503; the
// library's filter would call that an internal error.
func withAuthorization(api http.Handler, az decider, serializer runtime.NegotiatedSerializer) http.Handler {
	decided := filters.WithAuthorization(api, az, serializer)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := request.UserFrom(r.Context())
		if az.Decides(who) == nil {
			decided.ServeHTTP(w, r)
			return
		}
		// Some of the user's requests can be decided all the same.
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

// withImpersonation lets callers act as others where they may. The library's filter would deny what cannot be decided.
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

// answerUndecided leaves a note in the audit event, as the library does where a decision fails.
func answerUndecided(err *outage.Error, serializer runtime.NegotiatedSerializer, w http.ResponseWriter, r *http.Request) {
	audit.AddAuditAnnotation(r.Context(), "authorization.k8s.io/reason", "internal error")
	gv := schema.GroupVersion{Version: "v1"}
	if info, ok := request.RequestInfoFrom(r.Context()); ok && info.APIVersion != "" {
		gv = schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}
	}
	responsewriters.ErrorNegotiated(err, serializer, gv, w, r)
}
