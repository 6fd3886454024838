package authn

import (
	"context"
	"errors"
	"slices"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/token"
)

// Verifier decides whether a token holds now. *token.Verifier is one.
type Verifier interface {
	Verify(ctx context.Context, text string, audiences []string) (token.Identity, error)
}

// Token presents a Verifier as an authenticator of bearer tokens.
type Token struct {
	verifier  Verifier
	audiences authenticator.Audiences
}

var _ authenticator.Token = &Token{}

// NewToken returns an authenticator that accepts tokens for the audiences in the request's context, or, where that
// names none, for those of the API server.
func NewToken(verifier Verifier, audiences authenticator.Audiences) *Token {
	return &Token{verifier: verifier, audiences: audiences}
}

// AuthenticateToken implements authenticator.Token. A token of another issuer is no error: another authenticator may
// know it.
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
	case errors.Is(err, token.ErrAnchorsStale):
		return nil, false, outage.New(err)
	}
	return nil, false, err
}

func userOf(id token.Identity) user.Info {
	return &user.DefaultInfo{Name: id.Name, UID: id.UID, Groups: Authenticated(id.Groups), Extra: id.Extra}
}

// Authenticated returns the groups with that of everyone who is known. Each authenticator of tokens adds it, and not
// that of requests alone, since a token review must show the same groups that a request with the token is decided by.
func Authenticated(groups []string) []string {
	if slices.Contains(groups, user.AllAuthenticated) {
		return groups
	}
	return append(slices.Clip(groups), user.AllAuthenticated)
}
