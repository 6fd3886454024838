package authn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"lanyard.dev/internal/account"
	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/token"
)

// Credentials knows which credentials were issued. *issuance.Journal implements it.
type Credentials interface {
	// CheckCertificate returns issuance.ErrRevoked for a certificate that was revoked, whose ID is given, and another error if that
	// is not known now.
	CheckCertificate(id string, c *x509.Certificate) error
	// Used notes that a credential with an ID was accepted. The address is "" if it is not known where it was used.
	Used(id, address string)
}

// The prefixes of the credential IDs of certificates and of tokens.
const certificatePrefix, tokenPrefix = "X509SHA256=", "JTI="

// certificates authenticates requests by certificates that were not revoked.
type certificates struct {
	authenticator.Request
	credentials Credentials
}

// AuthenticateRequest implements authenticator.Request. If it is not known now whether a certificate was revoked, it is accepted
// for health checks only.
func (c *certificates) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	response, ok, err := c.Request.AuthenticateRequest(r)
	if err != nil || !ok {
		return response, ok, err
	}
	id := strings.TrimPrefix(credentialOf(response.User), certificatePrefix)
	err = c.credentials.CheckCertificate(id, r.TLS.PeerCertificates[0])
	switch {
	case errors.Is(err, issuance.ErrRevoked):
		return nil, false, fmt.Errorf("client certificate of %q: %w", response.User.GetName(), err)
	case err != nil && !outage.IsHealthCheck(r.URL.Path):
		return nil, false, outage.New(fmt.Errorf("client certificate of %q: %w", response.User.GetName(), err))
	}
	c.credentials.Used(id, addressOf(r.RemoteAddr))
	return response, true, nil
}

// noteToken notes the use of a service account's token. Other issuers choose the IDs of their tokens, so these are not noted.
func noteToken(c Credentials, who user.Info, address string) {
	if !strings.HasPrefix(who.GetName(), account.UserPrefix) {
		return
	}
	if id, ok := strings.CutPrefix(credentialOf(who), tokenPrefix); ok {
		c.Used(id, address)
	}
}

// reviewed authenticates the tokens in reviews.
type reviewed struct {
	authenticator.Token
	credentials Credentials
}

// NewReviewed returns an authenticator of the tokens in reviews. A review is a use of the token: its bearer has presented it to the
// server that asks for the review. From where is not known. A node reviews the tokens of its own pods to find out whether
// they must be replaced; that is no use.
func NewReviewed(tokens authenticator.Token, c Credentials) authenticator.Token {
	return &reviewed{tokens, c}
}

// AuthenticateToken implements authenticator.Token.
func (t *reviewed) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	response, ok, err := t.Token.AuthenticateToken(ctx, text)
	if err == nil && ok && !isOfOwnPod(ctx, response.User) {
		noteToken(t.credentials, response.User, "")
	}
	return response, ok, err
}

// isOfOwnPod reports whether the caller is the node that the bearer of a token runs on.
func isOfOwnPod(ctx context.Context, bearer user.Info) bool {
	caller, ok := request.UserFrom(ctx)
	if !ok {
		return false
	}
	node, ok := nodeaccess.Identify(caller.GetName(), caller.GetGroups())
	names := bearer.GetExtra()[token.ExtraNodeName]
	return ok && len(names) > 0 && names[0] == node
}
