package authn

import (
	"crypto/x509"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
)

// ClientCA gives the options to verify client certificates with; false when there are none now.
type ClientCA func() (x509.VerifyOptions, bool)

// NewRequest returns the authenticator of every request. ca may be nil: then no client certificate is accepted. A
// credential that does not hold is refused and never taken for anonymous. nodes tells whether the certificate of a node still
// counts; nil means that all do. without says which requests may be anonymous; nil means all.
func NewRequest(tokens authenticator.Token, ca ClientCA, nodes NodeCertificates, without *apiserver.AnonymousAuthConfig) authenticator.Request {
	var known []authenticator.Request
	if ca != nil {
		known = append(known, x509request.NewDynamic(x509request.VerifyOptionFunc(ca), certificateUser(nodes)))
	}
	known = append(known, bearertoken.New(tokens))
	authenticated := group.NewAuthenticatedGroupAdder(union.New(known...))
	if without == nil {
		without = &apiserver.AnonymousAuthConfig{Enabled: true}
	}
	if !without.Enabled {
		return authenticated
	}
	return union.NewFailOnError(authenticated, anonymous.NewAuthenticator(without.Conditions))
}
