package authn_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/authentication/authenticator"

	"lanyard.dev/internal/apiserver/authn"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/token"
)

// verifier knows one good token, "good", for the audience api or other.
type verifier struct{}

func (verifier) Verify(_ context.Context, text string, audiences []string) (token.Identity, error) {
	switch text {
	case "good":
		for _, a := range audiences {
			if a == "api" || a == "other" {
				return token.Identity{
					Name: "system:serviceaccount:ns:robot", UID: "u", Groups: []string{"system:serviceaccounts"}, Audiences: []string{a},
					Extra: map[string][]string{token.ExtraCredentialID: {"JTI=1"}},
				}, nil
			}
		}
		return token.Identity{}, token.ErrAudience
	case "expired":
		return token.Identity{}, fmt.Errorf("%w: yesterday", token.ErrExpired)
	case "foreign":
		return token.Identity{}, token.ErrForeignIssuer
	}
	return token.Identity{}, token.ErrNotJWT
}

func bearer(value string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	if value != "" {
		r.Header.Set("Authorization", value)
	}
	return r
}

func withCertificate(r *http.Request, c *x509.Certificate) *http.Request {
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
	return r
}

func TestRequest(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	admin := ca.issue(t, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, time.Hour)
	expired := ca.issue(t, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, -time.Minute)
	forged := newAuthority(t).issue(t, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, time.Hour)
	options := func() (x509.VerifyOptions, bool) { return ca.options(), true }
	none := func() (x509.VerifyOptions, bool) { return x509.VerifyOptions{}, false }

	const refused = "(refused)"
	for _, test := range []struct {
		name    string
		ca      authn.ClientCA
		request *http.Request
		user    string
		groups  []string
	}{
		{"nothing", options, bearer(""), "system:anonymous", []string{"system:unauthenticated"}},
		{"token", options, bearer("Bearer good"), "system:serviceaccount:ns:robot", []string{"system:serviceaccounts", "system:authenticated"}},
		{"token, scheme in lower case", options, bearer("bearer good"), "system:serviceaccount:ns:robot", []string{"system:serviceaccounts", "system:authenticated"}},
		{"expired token", options, bearer("Bearer expired"), refused, nil},
		{"foreign token", options, bearer("Bearer foreign"), refused, nil},
		{"junk token", options, bearer("Bearer junk"), refused, nil},
		{"certificate", options, withCertificate(bearer(""), admin), "admin", []string{"system:masters", "system:authenticated"}},
		{"certificate before token", options, withCertificate(bearer("Bearer good"), admin), "admin", []string{"system:masters", "system:authenticated"}},
		{"certificate and bad token", options, withCertificate(bearer("Bearer junk"), admin), "admin", []string{"system:masters", "system:authenticated"}},
		{"expired certificate", options, withCertificate(bearer(""), expired), refused, nil},
		{"certificate of another CA", options, withCertificate(bearer(""), forged), refused, nil},
		{"bad certificate and token", options, withCertificate(bearer("Bearer good"), forged), "system:serviceaccount:ns:robot", []string{"system:serviceaccounts", "system:authenticated"}},
		{"bad certificate and bad token", options, withCertificate(bearer("Bearer junk"), forged), refused, nil},
		{"no client CA at all", nil, bearer("Bearer good"), "system:serviceaccount:ns:robot", []string{"system:serviceaccounts", "system:authenticated"}},
		{"certificate, no client CA now", none, withCertificate(bearer("Bearer junk"), admin), refused, nil},
		{"basic authentication is no credential here", options, bearer("Basic YTpi"), "system:anonymous", []string{"system:unauthenticated"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			auth := authn.NewRequest(authn.NewToken(verifier{}, []string{"api"}), test.ca, nil, nil)
			response, ok, err := auth.AuthenticateRequest(test.request)
			if test.user == refused {
				if ok || err == nil {
					t.Fatalf("want a refusal, got %+v, %v, %v", response, ok, err)
				}
				return
			}
			if err != nil || !ok {
				t.Fatalf("got %v, %v", ok, err)
			}
			if got := response.User.GetName(); got != test.user {
				t.Errorf("user %q, want %q", got, test.user)
			}
			if got := response.User.GetGroups(); !slices.Equal(got, test.groups) {
				t.Errorf("groups %q, want %q", got, test.groups)
			}
		})
	}
}

// evicting refuses node "thief", whatever its certificate, and remembers what it was asked.
type evicting struct{ asked []string }

func (e *evicting) Admits(node string, notBefore time.Time) error {
	e.asked = append(e.asked, node+" "+notBefore.UTC().Format(time.RFC3339))
	if node == "thief" {
		return nodeaccess.ErrEvicted
	}
	return nil
}

// TestCertificatesOfNodes: only those of nodes are asked about, and a refusal does not turn into anonymous.
func TestCertificatesOfNodes(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, test := range []struct {
		name            string
		groups          []string
		refused, isNode bool
	}{
		{"system:node:n", []string{"system:nodes"}, false, true},
		{"system:node:thief", []string{"system:nodes"}, true, true},
		{"system:node:thief", []string{"system:nodes", "dev"}, true, true},
		{"system:node:thief", []string{"dev"}, false, false},
		{"thief", []string{"system:nodes"}, false, false},
	} {
		certificate := ca.issue(t, pkix.Name{CommonName: test.name, Organization: test.groups}, time.Hour)
		nodes := &evicting{}
		auth := authn.NewRequest(authn.NewToken(verifier{}, []string{"api"}), func() (x509.VerifyOptions, bool) { return ca.options(), true }, nodes, nil)
		response, ok, err := auth.AuthenticateRequest(withCertificate(bearer(""), certificate))
		if test.refused != (err != nil) || test.refused == ok || test.refused && !errors.Is(err, nodeaccess.ErrEvicted) {
			t.Errorf("%s of %v: %v, %v", test.name, test.groups, ok, err)
		}
		if test.refused || err != nil {
			continue
		}
		since := certificate.NotBefore.UTC().Format(time.RFC3339)
		got := response.User.GetExtra()[nodeaccess.ExtraNotBefore]
		if test.isNode != slices.Equal(got, []string{since}) || test.isNode != slices.Equal(nodes.asked, []string{"n " + since}) {
			t.Errorf("%s of %v: extra %v, asked %v", test.name, test.groups, got, nodes.asked)
		}
	}
}

// TestCredentialsStayOutOfErrors also sees to it that the header is gone from a request that goes on.
func TestCredentialsStayOutOfErrors(t *testing.T) {
	t.Parallel()
	auth := authn.NewRequest(authn.NewToken(verifier{}, []string{"api"}), nil, nil, nil)
	r := bearer("Bearer secret-junk-token")
	if _, _, err := auth.AuthenticateRequest(r); err == nil || strings.Contains(err.Error(), "secret-junk-token") {
		t.Errorf("got %v", err)
	}
	r = bearer("Bearer good")
	if _, ok, _ := auth.AuthenticateRequest(r); !ok || r.Header.Get("Authorization") != "" {
		t.Errorf("accepted=%v, and the handlers still see %q", ok, r.Header.Get("Authorization"))
	}
}

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
