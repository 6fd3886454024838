package authn

import (
	"context"
	"errors"
	"slices"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/token"
)

// Verifier verifies tokens. *token.Verifier implements it.
type Verifier interface {
	Verify(ctx context.Context, text string, audiences []string) (token.Identity, error)
}

// Token presents a Verifier as an authenticator of bearer tokens.
type Token struct {
	verifier  Verifier
	audiences authenticator.Audiences
}

var _ authenticator.Token = &Token{}

// NewToken returns an authenticator that accepts tokens for the audiences in the context of the request or, if it has none, for
// the given audiences, which are the audiences of the API server.
func NewToken(verifier Verifier, audiences authenticator.Audiences) *Token {
	return &Token{verifier: verifier, audiences: audiences}
}

// AuthenticateToken implements authenticator.Token. A token of another issuer is no error, because another authenticator may
// accept it.
func (t *Token) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	audiences, ok := authenticator.AudiencesFrom(ctx)
	if !ok || len(audiences) == 0 {
		audiences = t.audiences
	}
	id, err := t.verifier.Verify(ctx, text, audiences)
	switch {
	case err == nil:
		return &authenticator.Response{Audiences: id.Audiences, User: userOf(id)}, true, nil
	case token.Foreign(err):
		return nil, false, nil
	case token.Undecided(err):
		return nil, false, outage.New(err)
	}
	return nil, false, err
}

func userOf(id token.Identity) user.Info {
	return &user.DefaultInfo{Name: id.Name, UID: id.UID, Groups: Authenticated(id.Groups), Extra: id.Extra}
}

// Authenticated returns the groups with system:authenticated. The authenticators of tokens add that group themselves, so that
// a token review shows the same groups as those that a request with the token has.
func Authenticated(groups []string) []string {
	if slices.Contains(groups, user.AllAuthenticated) {
		return groups
	}
	return append(slices.Clip(groups), user.AllAuthenticated)
}

// BootstrapTokens verifies bootstrap tokens. *bootstraptoken.Memory implements it.
type BootstrapTokens interface {
	Verify(bootstraptoken.Token) (bootstraptoken.Entry, error)
}

// Bootstrap presents BootstrapTokens as an authenticator of bearer tokens.
type Bootstrap struct{ tokens BootstrapTokens }

var _ authenticator.Token = &Bootstrap{}

// NewBootstrap returns an authenticator that accepts bootstrap tokens and has no opinion about other tokens.
func NewBootstrap(tokens BootstrapTokens) *Bootstrap { return &Bootstrap{tokens: tokens} }

// AuthenticateToken implements authenticator.Token.
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

// NewTokens returns an authenticator of the tokens of service accounts and of bootstrap tokens. Bootstrap tokens are valid for
// the API server only, whose audiences are given.
func NewTokens(accounts authenticator.Token, bootstrap BootstrapTokens, audiences authenticator.Audiences) authenticator.Token {
	return union.New(authenticator.WrapAudienceAgnosticToken(audiences, NewBootstrap(bootstrap)), accounts)
}
