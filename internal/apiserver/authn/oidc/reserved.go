package oidc

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"

	"lanyard.dev/internal/apiserver/outage"
)

// reservedPrefix begins the names of users and groups that have a meaning to the system, such as system:masters, which may do
// everything.
const reservedPrefix = "system:"

// noKeys begins the library's error if the issuer does not respond to a request for the key that a token names. There is no
// other way to distinguish this error from an invalid signature. Only the beginning of the error is compared, because the rest
// may quote a forged token.
const noKeys = "oidc: verify token: failed to verify signature: fetching keys "

// restricted prevents an issuer from naming a user or a group with the reserved prefix, if the name is the value of a claim.
// A name that has a prefix or is the result of an expression is the administrator's choice, and may be any. A user without a
// name is always refused. While the keys of the issuer cannot be read, its tokens are neither accepted nor refused.
type restricted struct {
	oidc.AuthenticatorTokenWithHealthCheck
	issuer string
	// bareUsername is whether the name of the user is the value of a claim, and bareGroups whether the names of groups are.
	bareUsername, bareGroups bool
}

// restrict returns t with the restrictions on the issuer that c configures.
func restrict(t oidc.AuthenticatorTokenWithHealthCheck, c apiserver.JWTAuthenticator) authenticator.Token {
	bare := func(m apiserver.PrefixedClaimOrExpression) bool {
		return m.Claim != "" && (m.Prefix == nil || *m.Prefix == "")
	}
	return &restricted{
		AuthenticatorTokenWithHealthCheck: t, issuer: c.Issuer.URL,
		bareUsername: bare(c.ClaimMappings.Username), bareGroups: bare(c.ClaimMappings.Groups),
	}
}

// AuthenticateToken implements authenticator.Token.
func (r *restricted) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	response, ok, err := r.AuthenticatorTokenWithHealthCheck.AuthenticateToken(ctx, text)
	if err != nil && (r.HealthCheck() != nil || strings.HasPrefix(err.Error(), noKeys)) {
		return nil, false, outage.New(err)
	}
	if err != nil || !ok {
		return response, ok, err
	}
	if response.User.GetName() == "" {
		return nil, false, fmt.Errorf("issuer %s names a user without a username", r.issuer)
	}
	if name := response.User.GetName(); r.bareUsername && strings.HasPrefix(name, reservedPrefix) {
		return nil, false, fmt.Errorf("issuer %s names a user %q: the prefix %q is reserved", r.issuer, name, reservedPrefix)
	}
	for _, group := range response.User.GetGroups() {
		if r.bareGroups && strings.HasPrefix(group, reservedPrefix) {
			return nil, false, fmt.Errorf("issuer %s names a group %q: the prefix %q is reserved", r.issuer, group, reservedPrefix)
		}
	}
	return response, true, nil
}
