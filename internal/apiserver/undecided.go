package apiserver

import (
	"context"
	"net/http"
	"strings"

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

	"lanyard.dev/internal/apiserver/outage"
)

// verdict is where the authentication of one request leaves why it could not be decided: the library's filter answers
// every failure alike.
type verdict struct{ undecided *outage.Error }

type verdictKey struct{}

// withAuthentication identifies the caller. A credential that does not hold is answered with 401, one about which
// nothing can be told now with 503.
func withAuthentication(h http.Handler, c *genericserver.Config) http.Handler {
	identify := authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		response, ok, err := c.Authentication.Authenticator.AuthenticateRequest(r)
		if left, found := r.Context().Value(verdictKey{}).(*verdict); found {
			left.undecided = outage.Of(err)
		}
		return response, ok, err
	})
	refuse := filters.Unauthorized(c.Serializer)
	failed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if left, found := r.Context().Value(verdictKey{}).(*verdict); found && left.undecided != nil {
			answerUndecided(left.undecided, c.Serializer, w, r)
			return
		}
		refuse.ServeHTTP(w, r)
	})
	audited := filters.WithFailedAuthenticationAudit(failed, c.AuditBackend, c.AuditPolicyRuleEvaluator)
	next := filters.WithAuthentication(h, identify, audited, c.Authentication.APIAudiences, nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), verdictKey{}, &verdict{})))
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
