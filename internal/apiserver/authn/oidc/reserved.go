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

// reservedPrefix begins the names of users and groups that the system gives a meaning of its own, such as
// system:masters, which no policy binds.
const reservedPrefix = "system:"

// noKeys begins the library's error where the issuer does not answer for the key that a token names. Nothing else tells
// that from a signature that does not hold. Further on, the library's errors may quote a forged token.
const noKeys = "oidc: verify token: failed to verify signature: fetching keys "

// guarded keeps an issuer from naming a user or group with the reserved prefix, where a claim is taken over as it is. A
// prefix or an expression is the administrator's word, and holds. A user without a name is refused in any case. While the
// keys of the issuer cannot be read, its tokens are neither accepted nor refused.
type guarded struct {
	oidc.AuthenticatorTokenWithHealthCheck
	issuer         string
	username, each bool // whether the name, and each group, is the issuer's word alone
}

func guard(t oidc.AuthenticatorTokenWithHealthCheck, c apiserver.JWTAuthenticator) authenticator.Token {
	bare := func(m apiserver.PrefixedClaimOrExpression) bool {
		return m.Claim != "" && (m.Prefix == nil || *m.Prefix == "")
	}
	return &guarded{AuthenticatorTokenWithHealthCheck: t, issuer: c.Issuer.URL, username: bare(c.ClaimMappings.Username), each: bare(c.ClaimMappings.Groups)}
}

// AuthenticateToken implements authenticator.Token.
func (g *guarded) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	response, ok, err := g.AuthenticatorTokenWithHealthCheck.AuthenticateToken(ctx, text)
	if err != nil && (g.HealthCheck() != nil || strings.HasPrefix(err.Error(), noKeys)) {
		return nil, false, outage.New(err)
	}
	if err != nil || !ok {
		return response, ok, err
	}
	if response.User.GetName() == "" {
		return nil, false, fmt.Errorf("issuer %s names a user with no username", g.issuer)
	}
	if name := response.User.GetName(); g.username && strings.HasPrefix(name, reservedPrefix) {
		return nil, false, fmt.Errorf("issuer %s names a user %q: the prefix %q is reserved", g.issuer, name, reservedPrefix)
	}
	for _, group := range response.User.GetGroups() {
		if g.each && strings.HasPrefix(group, reservedPrefix) {
			return nil, false, fmt.Errorf("issuer %s names a group %q: the prefix %q is reserved", g.issuer, group, reservedPrefix)
		}
	}
	return response, true, nil
}
