package loopback

import (
	"context"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// identityKey is the key of the identity in the context of a request. Only transport sets it.
type identityKey struct{}

// UserFrom returns the user of a request that a client of this package made; false for a request from outside.
func UserFrom(ctx context.Context) (user.Info, bool) {
	who, ok := ctx.Value(identityKey{}).(user.Info)
	return who, ok
}

// Authenticator identifies the requests that clients of this package made.
type Authenticator struct{}

var _ authenticator.Request = Authenticator{}

// AuthenticateRequest implements authenticator.Request.
func (Authenticator) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	who, ok := UserFrom(r.Context())
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: who}, true, nil
}

// External applies a filter to requests from outside only. Requests of clients of this package go to next directly.
func External(next http.Handler, filter func(http.Handler) http.Handler) http.Handler {
	filtered := filter(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, internal := UserFrom(r.Context()); internal {
			next.ServeHTTP(w, r)
			return
		}
		filtered.ServeHTTP(w, r)
	})
}
