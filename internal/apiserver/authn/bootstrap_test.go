package authn_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticator"

	"lanyard.dev/internal/apiserver/authn"
	"lanyard.dev/internal/bootstraptoken"
)

// known verifies the one token it holds.
type known struct {
	token string
	err   error
}

func (k known) Verify(t bootstraptoken.Token) (bootstraptoken.Entry, error) {
	if t.Reveal() != k.token {
		return bootstraptoken.Entry{}, bootstraptoken.ErrUnknown
	}
	return bootstraptoken.Entry{ID: t.ID(), Groups: []string{bootstraptoken.Group}}, k.err
}

// others stands for every other authenticator: it notes what it is asked.
type others struct{ asked []string }

func (o *others) AuthenticateToken(_ context.Context, text string) (*authenticator.Response, bool, error) {
	o.asked = append(o.asked, text)
	return nil, false, nil
}

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
		{"holds", good, nil, nil, "system:bootstrap:abcdef", nil},
		{"holds for the API server", good, api, nil, "system:bootstrap:abcdef", nil},
		{"is not for others", good, authenticator.Audiences{"vault"}, nil, "", nil},
		{"unknown", "abcdef.0123456789abcdee", nil, nil, "", bootstraptoken.ErrUnknown},
		{"refused", good, nil, expired, "", expired},
		{"another form", "abcdef.0123", nil, nil, "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			rest := &others{}
			ctx := t.Context()
			if test.audiences != nil {
				ctx = authenticator.WithAudiences(ctx, test.audiences)
			}
			response, ok, err := authn.NewTokens(rest, known{good, test.fault}, api).AuthenticateToken(ctx, test.give)
			if ok != (test.user != "") || (err != nil) != (test.err != nil) || err != nil && !errors.Is(err, test.err) {
				t.Fatalf("got %v, %v", ok, err)
			}
			if ok && (response.User.GetName() != test.user || !slices.Equal(response.User.GetGroups(), []string{"system:bootstrappers", "system:authenticated"})) {
				t.Errorf("got %+v", response.User)
			}
			if ok == (len(rest.asked) > 0) {
				t.Errorf("others were asked %q", rest.asked)
			}
		})
	}
}
