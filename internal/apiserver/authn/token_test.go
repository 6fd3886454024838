package authn_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/authentication/authenticator"

	"lanyard.dev/internal/apiserver/authn"
	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/token"
)

// TestToken checks which audiences a token is accepted for, and which tokens are left to other authenticators.
func TestToken(t *testing.T) {
	t.Parallel()
	tokens := authn.NewToken(verifier{}, []string{"api"})
	for _, test := range []struct {
		name, text string
		audiences  authenticator.Audiences
		ok         bool
		err        error
		want       authenticator.Audiences
	}{
		{"the server's own audience", "good", nil, true, nil, []string{"api"}},
		{"another audience", "good", []string{"unknown", "other"}, true, nil, []string{"other"}},
		{"an audience that it does not have", "good", []string{"unknown"}, false, token.ErrAudience, nil},
		{"an empty list means the server's own", "good", authenticator.Audiences{}, true, nil, []string{"api"}},
		{"expired", "expired", nil, false, token.ErrExpired, nil},
		{"foreign", "foreign", nil, false, nil, nil},
		{"no JWT", "opaque", nil, false, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			if test.audiences != nil {
				ctx = authenticator.WithAudiences(ctx, test.audiences)
			}
			response, ok, err := tokens.AuthenticateToken(ctx, test.text)
			if ok != test.ok || !errors.Is(err, test.err) {
				t.Fatalf("got %v, %v, want %v, %v", ok, err, test.ok, test.err)
			}
			if !ok {
				if response != nil {
					t.Errorf("refused, with response %+v", response)
				}
				return
			}
			if diff := cmp.Diff(test.want, response.Audiences); diff != "" {
				t.Errorf("audiences (-want +got):\n%s", diff)
			}
			if got := response.User.GetExtra()[token.ExtraCredentialID]; !slices.Equal(got, []string{"JTI=1"}) {
				t.Errorf("credential id %q", got)
			}
			if response.User.GetUID() != "u" {
				t.Errorf("UID %q", response.User.GetUID())
			}
		})
	}
}

// oneToken accepts one bootstrap token.
type oneToken struct {
	token string
	err   error
}

func (k oneToken) Verify(t bootstraptoken.Token) (bootstraptoken.Entry, error) {
	if t.Reveal() != k.token {
		return bootstraptoken.Entry{}, bootstraptoken.ErrUnknown
	}
	return bootstraptoken.Entry{ID: t.ID(), Groups: []string{bootstraptoken.Group}}, k.err
}

// otherTokens is another authenticator. It records the tokens that it receives.
type otherTokens struct{ received []string }

func (o *otherTokens) AuthenticateToken(_ context.Context, text string) (*authenticator.Response, bool, error) {
	o.received = append(o.received, text)
	return nil, false, nil
}

// TestBootstrapTokens checks which bootstrap tokens are accepted, and what other authenticators receive.
func TestBootstrapTokens(t *testing.T) {
	t.Parallel()
	const good = "abcdef.0123456789abcdef"
	api := authenticator.Audiences{"api"}
	expired := errors.New("it has expired")
	for _, test := range []struct {
		name, give string
		audiences  authenticator.Audiences
		fault      error
		user       string
		err        error
	}{
		{"valid", good, nil, nil, "system:bootstrap:abcdef", nil},
		{"valid for the API server", good, api, nil, "system:bootstrap:abcdef", nil},
		{"not valid for others", good, authenticator.Audiences{"vault"}, nil, "", nil},
		{"unknown", "abcdef.0123456789abcdee", nil, nil, "", bootstraptoken.ErrUnknown},
		{"refused", good, nil, expired, "", expired},
		{"another form", "abcdef.0123", nil, nil, "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			rest := &otherTokens{}
			ctx := t.Context()
			if test.audiences != nil {
				ctx = authenticator.WithAudiences(ctx, test.audiences)
			}
			response, ok, err := authn.NewTokens(rest, oneToken{good, test.fault}, api).AuthenticateToken(ctx, test.give)
			if ok != (test.user != "") || (err != nil) != (test.err != nil) || err != nil && !errors.Is(err, test.err) {
				t.Fatalf("got %v, %v", ok, err)
			}
			if ok && (response.User.GetName() != test.user || !slices.Equal(response.User.GetGroups(), []string{"system:bootstrappers", "system:authenticated"})) {
				t.Errorf("got %+v", response.User)
			}
			if ok == (len(rest.received) > 0) {
				t.Errorf("other authenticators received %q", rest.received)
			}
		})
	}
}
