package authn_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/authn"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/token"
)

// newCredentials returns the credentials of requests that newRequest authenticates.
func newCredentials(ca authn.ClientCA, c clock.PassiveClock) func(*http.Request) *authn.Presented {
	config := authn.RequestConfig{Tokens: authn.NewToken(verifier{}, []string{"api"}), CA: ca, Credentials: &credentials{}}
	return authn.Presents(config, []string{"api"}, c)
}

// TestCredentialID checks which requests present the same credential.
func TestCredentialID(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	one := ca.issue(t, pkix.Name{CommonName: "jane"}, time.Hour)
	two := ca.issue(t, pkix.Name{CommonName: "jane"}, time.Hour)
	elsewhere := bearer("")
	elsewhere.URL.Path = "/elsewhere"
	of := newCredentials(func() (x509.VerifyOptions, bool) { return ca.options(), true }, clock.RealClock{})
	seen := map[[32]byte]string{}
	for name, make := range map[string]func() *http.Request{
		"token":                     func() *http.Request { return bearer("Bearer good") },
		"another token":             func() *http.Request { return bearer("Bearer goo") },
		"certificate":               func() *http.Request { return withCertificate(bearer(""), one) },
		"renewed certificate":       func() *http.Request { return withCertificate(bearer(""), two) },
		"certificate and token":     func() *http.Request { return withCertificate(bearer("Bearer good"), one) },
		"WebSocket token":           func() *http.Request { return webSocket("v1, " + protocolOf("good")) },
		"another WebSocket token":   func() *http.Request { return webSocket("v1, " + protocolOf("goo")) },
		"no credential":             func() *http.Request { return bearer("") },
		"no credential, other path": func() *http.Request { return elsewhere },
	} {
		id := of(make()).ID()
		if other, ok := seen[id]; ok {
			t.Errorf("%s: the same as %s", name, other)
		}
		seen[id] = name
		if of(make()).ID() != id {
			t.Errorf("%s: two requests with it differ", name)
		}
	}
}

// TestExpiredCertificate checks that a certificate that was accepted is refused when it expires or its CA is replaced. Its
// signatures are verified again only then.
func TestExpiredCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	certificate := ca.issue(t, pkix.Name{CommonName: "jane"}, time.Minute)
	options := ca.options()
	now := testclock.NewFakePassiveClock(time.Now())
	ask := newCredentials(func() (x509.VerifyOptions, bool) { return options, true }, now)(withCertificate(bearer(""), certificate)).User
	accepted := func(want bool, when string) {
		t.Helper()
		if who, err := ask(t.Context()); (err == nil) != want || want && who.GetName() != "jane" {
			t.Errorf("%s: %+v, %v", when, who, err)
		}
	}
	accepted(true, "at first")
	now.SetTime(certificate.NotAfter)
	accepted(true, "in its last second")
	now.SetTime(certificate.NotAfter.Add(time.Millisecond))
	accepted(false, "after its last second")
	now.SetTime(certificate.NotAfter.Add(-time.Second))
	accepted(true, "when the clock was set back")
	options = newAuthority(t).options()
	accepted(false, "when the CA was replaced")
	options = ca.options()
	accepted(true, "when the CA was put back")
}

// TestExpiredCA checks that a certificate ends with its CA.
func TestExpiredCA(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	certificate := ca.issue(t, pkix.Name{CommonName: "jane"}, 48*time.Hour)
	now := testclock.NewFakePassiveClock(time.Now())
	credential := newCredentials(func() (x509.VerifyOptions, bool) { return ca.options(), true }, now)(withCertificate(bearer(""), certificate))
	if _, err := credential.User(t.Context()); err != nil {
		t.Fatal(err)
	}
	now.SetTime(ca.root.NotAfter.Add(time.Second))
	if who, err := credential.User(t.Context()); err == nil {
		t.Errorf("accepted as %+v after its CA expired", who)
	}
}

// changing is a verifier whose answer changes.
type changing struct{ err error }

func (c *changing) Verify(ctx context.Context, text string, audiences []string) (token.Identity, error) {
	if c.err != nil {
		return token.Identity{}, c.err
	}
	return verifier{}.Verify(ctx, text, audiences)
}

// TestCredentialThatEnds checks that a credential which was accepted is refused as soon as a new request with it would be.
func TestCredentialThatEnds(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	tokens, nodes, known := &changing{}, &evictable{}, &credentials{}
	of := authn.Presents(authn.RequestConfig{
		Tokens: authn.NewToken(tokens, []string{"api"}), CA: func() (x509.VerifyOptions, bool) { return ca.options(), true }, Nodes: nodes,
		Anonymous: &apiserver.AnonymousAuthConfig{Enabled: false}, Credentials: known,
	}, []string{"api"}, clock.RealClock{})
	node := ca.issue(t, pkix.Name{CommonName: "system:node:n", Organization: []string{"system:nodes"}}, time.Hour)
	robot, machine := of(bearer("Bearer good")), of(withCertificate(bearer(""), node))
	for _, step := range []struct {
		token, node error
		undecided   bool
	}{
		{nil, nil, false}, {token.ErrAccountGone, nodeaccess.ErrEvicted, false}, {nil, nil, false},
		{token.ErrAnchorsStale, errBehind, true}, {nil, nil, false},
	} {
		tokens.err, nodes.err = step.token, step.node
		for credential, want := range map[*authn.Presented]error{robot: step.token, machine: step.node} {
			_, err := credential.User(t.Context())
			if !errors.Is(err, want) || (outage.Of(err) != nil) != step.undecided {
				t.Errorf("got %v, want %v, undecided %v", err, want, step.undecided)
			}
		}
	}
	if len(known.uses) > 0 {
		t.Errorf("checks are noted as uses: %q", known.uses)
	}
	if who, err := of(bearer("")).User(t.Context()); err == nil {
		t.Errorf("a request without a credential is accepted as %+v", who)
	}
}

type evictable struct{ err error }

func (e *evictable) Admits(string, time.Time) error { return e.err }
