package authn

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
)

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
