package authn

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"

	"lanyard.dev/internal/token"
)

var errNoCredential = errors.New("the request brings no credential")

// The longest parts of a line about a refusal; what is longer is cut. A caller chooses the text.
const (
	maxReason = 512
	maxPath   = 256
	maxAgent  = 128
	maxID     = 64
)

type refusalKey struct{}

// Refusal returns why the credential of a request was refused, or nil.
func Refusal(ctx context.Context) error {
	err, _ := ctx.Value(refusalKey{}).(error)
	return err
}

// explained logs why requests are refused, and leaves the reason in their context for the answer. The library's filter,
// which would log each at ERROR without saying where it came from, sees no error but an absent user.
type explained struct {
	authenticator.Request
	guard *Guard
}

// AuthenticateRequest implements authenticator.Request. It takes tokens out of the request; of one that is refused the
// Authorization header stays, because the audit log tells by it what kind of credential was tried.
func (e *explained) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	response, ok, err := e.Request.AuthenticateRequest(r)
	if ok && err == nil {
		r.Header.Del(authorizationHeader)
		removeTokenProtocol(r.Header)
		return response, true, nil
	}
	if err == nil {
		err = errNoCredential
	}
	e.guard.line(r.RemoteAddr, func(unlogged int64) string { return refusalLine(r, err, unlogged) })
	removeTokenProtocol(r.Header)
	*r = *r.WithContext(context.WithValue(r.Context(), refusalKey{}, err))
	return nil, false, nil
}

// refusalLine describes a refused request. It says nothing of its query, which may hold a command, and of its token only
// which key should have signed it and how its issuer calls it, if that can be read.
func refusalLine(r *http.Request, err error, unlogged int64) string {
	var line strings.Builder
	line.WriteString("Refused the credential of a request")
	add := func(name, value string, most int) {
		if value != "" {
			line.WriteString(" " + name + "=" + strconv.QuoteToASCII(value[:min(len(value), most)]))
		}
	}
	add("reason", err.Error(), maxReason)
	add("client", r.RemoteAddr, maxID)
	add("userAgent", r.UserAgent(), maxAgent)
	add("method", r.Method, maxID)
	add("path", r.URL.Path, maxPath)
	text, _ := bearerToken(r) // empty, and so without names, if it cannot be read
	kid, jti := token.Names(text)
	add("kid", kid, maxID)
	add("jti", jti, maxID)
	if unlogged > 0 {
		line.WriteString(" unlogged=" + strconv.FormatInt(unlogged, 10))
	}
	return line.String()
}
