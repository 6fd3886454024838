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
	"lanyard.dev/internal/rbac/bootstrap"
	"lanyard.dev/internal/token"
)

// ClientCA returns the options for verifying client certificates, or false if there are none now.
type ClientCA func() (x509.VerifyOptions, bool)

// RequestConfig configures the authentication of requests.
type RequestConfig struct {
	Tokens authenticator.Token
	// CA is nil if no client certificate is accepted.
	CA ClientCA
	// Nodes decides whether the certificate of a node is still accepted. If it is nil, all are.
	Nodes NodeCertificates
	// Anonymous is the configuration of anonymous requests. If it is nil, all requests may be anonymous.
	Anonymous *apiserver.AnonymousAuthConfig
	Guard     *Guard
	// Credentials refuses certificates that were revoked, and learns of the uses of credentials.
	Credentials Credentials
}

// NewRequest returns the authenticator of all requests. It refuses a credential that is not valid or cannot be read; such a
// request is never anonymous. It logs the reason and keeps it for Refusal, and returns no error itself.
func NewRequest(c RequestConfig) authenticator.Request {
	var known authenticator.Request
	if c.CA != nil {
		known = x509request.NewDynamic(x509request.VerifyOptionFunc(c.CA), certificateUser(c.Nodes))
	}
	return &loggingRequest{Request: c.callers(known, c.Guard), guard: c.Guard}
}

// callers returns the authenticator of all requests. known authenticates certificates of the client CA; it and guard may be nil.
func (c *RequestConfig) callers(known authenticator.Request, guard *Guard) authenticator.Request {
	var byCredential []authenticator.Request
	if known != nil {
		byCredential = append(byCredential, &certificates{known, c.Credentials})
	}
	byCredential = append(byCredential, &bearer{tokens: c.Tokens, guard: guard, credentials: c.Credentials})
	all := group.NewAuthenticatedGroupAdder(union.New(byCredential...))
	withoutCredential := c.Anonymous
	if withoutCredential == nil {
		withoutCredential = &apiserver.AnonymousAuthConfig{Enabled: true}
	}
	if withoutCredential.Enabled {
		all = union.NewFailOnError(all, anonymous.NewAuthenticator(withoutCredential.Conditions))
	}
	return all
}

// NodeCertificates decides whether the certificate of a node is accepted. *nodeaccess.Evictions implements it.
type NodeCertificates interface {
	// Admits returns nil for a certificate that is accepted, nodeaccess.ErrEvicted for one that is not, and another error if
	// that is not known now.
	Admits(node string, notBefore time.Time) error
}

// certificateUser returns the conversion of a certificate into a user: the common name is the user's name, and the
// organizations are its groups. It refuses the names of the server's own controllers: no credential has their rights, so
// that who may approve certificate requests cannot get them. If nodes is not nil, it must admit the certificates of nodes,
// and the user's extra holds since when such a certificate is valid.
func certificateUser(nodes NodeCertificates) x509request.UserConversion {
	return x509request.UserConversionFunc(func(chain []*x509.Certificate) (*authenticator.Response, bool, error) {
		response, ok, err := x509request.CommonNameUserConversion(chain)
		if err != nil || !ok {
			return response, ok, err
		}
		if name := response.User.GetName(); strings.HasPrefix(name, bootstrap.ControllerUser("")) {
			return nil, false, fmt.Errorf("client certificate of %q: the name is reserved for a controller of this server", name)
		}
		if nodes == nil {
			return response, true, nil
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

var errNoCredential = errors.New("the request has no credential")

// These are the longest parts of the log line about a refusal. Longer parts are cut, because a caller chooses their text.
const (
	maxReason = 512
	maxPath   = 256
	maxAgent  = 128
	maxID     = 64
)

type refusalKey struct{}

// Refusal returns the reason why the credential of a request was refused, or nil.
func Refusal(ctx context.Context) error {
	err, _ := ctx.Value(refusalKey{}).(error)
	return err
}

// loggingRequest logs why requests are refused, and stores the reason in their contexts. It returns no error to the library's
// filter, which would log each one at level ERROR and without the address of the client.
type loggingRequest struct {
	authenticator.Request
	guard *Guard
}

// AuthenticateRequest implements authenticator.Request. It removes tokens from the request. If the request is refused, the
// Authorization header stays, because the audit log takes the kind of the credential from it.
func (a *loggingRequest) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	response, ok, err := a.Request.AuthenticateRequest(r)
	if ok && err == nil {
		r.Header.Del(authorizationHeader)
		removeTokenProtocol(r.Header)
		noteMinter(r, response.User)
		return response, true, nil
	}
	if err == nil {
		err = errNoCredential
	}
	a.guard.logRefusal(r.RemoteAddr, func(unlogged int64) string { return refusalLine(r, err, unlogged) })
	removeTokenProtocol(r.Header)
	*r = *r.WithContext(context.WithValue(r.Context(), refusalKey{}, err))
	return nil, false, nil
}

// refusalLine returns the log line about a refused request. It does not contain the query, which may hold a command, and of
// the token only the id of the signing key (kid) and the token's own id (jti), if they can be read.
func refusalLine(r *http.Request, err error, unlogged int64) string {
	var line strings.Builder
	line.WriteString("Refused the credential of a request")
	add := func(name, value string, limit int) {
		if value != "" {
			line.WriteString(" " + name + "=" + strconv.QuoteToASCII(value[:min(len(value), limit)]))
		}
	}
	add("reason", err.Error(), maxReason)
	add("client", r.RemoteAddr, maxID)
	add("userAgent", r.UserAgent(), maxAgent)
	add("method", r.Method, maxID)
	add("path", r.URL.Path, maxPath)
	text, _ := bearerToken(r) // empty if it cannot be read
	kid, jti := token.Names(text)
	add("kid", kid, maxID)
	add("jti", jti, maxID)
	if unlogged > 0 {
		line.WriteString(" unlogged=" + strconv.FormatInt(unlogged, 10))
	}
	return line.String()
}
