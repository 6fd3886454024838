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
		{"asked for another", "good", []string{"nobody", "other"}, true, nil, []string{"other"}},
		{"asked for one it has not", "good", []string{"nobody"}, false, token.ErrAudience, nil},
		{"an empty list means the server's", "good", authenticator.Audiences{}, true, nil, []string{"api"}},
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
