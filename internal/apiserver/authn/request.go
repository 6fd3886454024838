package authn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/union"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/token"
)

// ClientCA gives the options to verify client certificates with; false when there are none now.
type ClientCA func() (x509.VerifyOptions, bool)

// RequestConfig says how requests are authenticated.
type RequestConfig struct {
	Tokens authenticator.Token
	// CA may be nil: then no client certificate is accepted.
	CA ClientCA
	// Nodes tells whether the certificate of a node still counts; nil means that all do.
	Nodes NodeCertificates
	// Anonymous says which requests may be anonymous; nil means all.
	Anonymous *apiserver.AnonymousAuthConfig
	Guard     *Guard
}

// NewRequest returns the authenticator of every request. A credential that does not hold, or cannot be read, is refused
// and never taken for anonymous; the reason is logged and kept for Refusal, and the authenticator itself returns no error.
func NewRequest(c RequestConfig) authenticator.Request {
	var known []authenticator.Request
	if c.CA != nil {
		known = append(known, x509request.NewDynamic(x509request.VerifyOptionFunc(c.CA), certificateUser(c.Nodes)))
	}
	known = append(known, &bearer{tokens: c.Tokens, guard: c.Guard})
	all := group.NewAuthenticatedGroupAdder(union.New(known...))
	without := c.Anonymous
	if without == nil {
		without = &apiserver.AnonymousAuthConfig{Enabled: true}
	}
	if without.Enabled {
		all = union.NewFailOnError(all, anonymous.NewAuthenticator(without.Conditions))
	}
	return &explained{Request: all, guard: c.Guard}
}

// NodeCertificates tells whether a certificate of a node still counts: nodeaccess.ErrEvicted says that it does not, and
// any other error that this is not known. *nodeaccess.Evictions does.
type NodeCertificates interface {
	Admits(node string, notBefore time.Time) error
}

// certificateUser returns how a certificate names a user: by its common name, with its organizations as groups. One of a
// node must be admitted by nodes, if that is not nil, and says in the user's extra since when it is valid.
func certificateUser(nodes NodeCertificates) x509request.UserConversion {
	return x509request.UserConversionFunc(func(chain []*x509.Certificate) (*authenticator.Response, bool, error) {
		response, ok, err := x509request.CommonNameUserConversion(chain)
		if err != nil || !ok || nodes == nil {
			return response, ok, err
		}
		node, ok := nodeaccess.Identify(response.User.GetName(), response.User.GetGroups())
		if !ok {
			return response, true, nil
		}
		notBefore := chain[0].NotBefore
		switch err := nodes.Admits(node, notBefore); {
		case errors.Is(err, nodeaccess.ErrEvicted):
			return nil, false, fmt.Errorf("client certificate of node %q: %w", node, err)
		case err != nil:
			return nil, false, outage.New(fmt.Errorf("client certificate of node %q: %w", node, err))
		}
		who, ok := response.User.(*user.DefaultInfo)
		if !ok {
			return nil, false, fmt.Errorf("client certificate of node %q: unexpected user info %T", node, response.User)
		}
		who.Extra[nodeaccess.ExtraNotBefore] = []string{notBefore.UTC().Format(time.RFC3339)}
		return response, true, nil
	})
}

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
