package authn

import (
	"context"
	"errors"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/bootstraptoken"
)

// BootstrapTokens verifies bootstrap tokens. *bootstraptoken.Memory does.
type BootstrapTokens interface {
	Verify(bootstraptoken.Token) (bootstraptoken.Entry, error)
}

// Bootstrap presents BootstrapTokens as an authenticator of bearer tokens.
type Bootstrap struct{ tokens BootstrapTokens }

var _ authenticator.Token = &Bootstrap{}

// NewBootstrap returns an authenticator that accepts bootstrap tokens and has no opinion on anything else.
func NewBootstrap(tokens BootstrapTokens) *Bootstrap { return &Bootstrap{tokens: tokens} }

// AuthenticateToken implements authenticator.Token. The form is checked before anything else.
func (b *Bootstrap) AuthenticateToken(_ context.Context, text string) (*authenticator.Response, bool, error) {
	token, ok := bootstraptoken.Parse(text)
	if !ok {
		return nil, false, nil
	}
	entry, err := b.tokens.Verify(token)
	switch {
	case errors.Is(err, bootstraptoken.ErrStale):
		return nil, false, outage.New(err)
	case err != nil:
		return nil, false, err
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: entry.User(), Groups: Authenticated(entry.Groups)}}, true, nil
}

// NewTokens returns the authenticator of every kind of bearer token: those of service accounts, and bootstrap tokens,
// which are for the API server alone, known by the given audiences.
func NewTokens(accounts authenticator.Token, bootstrap BootstrapTokens, audiences authenticator.Audiences) authenticator.Token {
	return union.New(authenticator.WrapAudienceAgnosticToken(audiences, NewBootstrap(bootstrap)), accounts)
}
