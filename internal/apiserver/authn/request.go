package authn

import (
	"crypto/x509"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/union"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
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
