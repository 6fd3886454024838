package authn_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/authn"
	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/token"
)

// credentials is an authn.Credentials that records uses, and answers with err about one certificate.
type credentials struct {
	id   string
	err  error
	uses []string
}

func (c *credentials) CheckCertificate(id string, _ *x509.Certificate) error {
	if id == c.id {
		return c.err
	}
	return nil
}

func (c *credentials) Used(id, address string) { c.uses = append(c.uses, id+" from "+address) }

// TestRevokedCertificates checks a certificate that was revoked, one that was not, and one of which that is not known.
func TestRevokedCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	certificate := ca.issue(t, pkix.Name{CommonName: "jane"}, time.Hour)
	digest := sha256.Sum256(certificate.Raw)
	id, behind := hex.EncodeToString(digest[:]), errors.New("behind")
	for _, tt := range []struct {
		name, path string
		known      credentials
		reason     error // nil if the certificate is accepted
		undecided  bool
	}{
		{name: "live", path: "/api", known: credentials{id: id}},
		{name: "another was revoked", path: "/api", known: credentials{id: "00", err: issuance.ErrRevoked}},
		{name: "revoked", path: "/api", known: credentials{id: id, err: issuance.ErrRevoked}, reason: issuance.ErrRevoked},
		{name: "revoked, health check", path: "/readyz", known: credentials{id: id, err: issuance.ErrRevoked}, reason: issuance.ErrRevoked},
		{name: "not known", path: "/api", known: credentials{id: id, err: behind}, reason: behind, undecided: true},
		{name: "not known, health check", path: "/readyz", known: credentials{id: id, err: behind}},
	} {
		auth := authn.NewRequest(authn.RequestConfig{
			Tokens: authn.NewToken(verifier{}, []string{"api"}), CA: func() (x509.VerifyOptions, bool) { return ca.options(), true },
			Guard: authn.NewGuard(clock.RealClock{}), Credentials: &tt.known,
		})
		r := withCertificate(httptest.NewRequest(http.MethodGet, tt.path, nil), certificate)
		response, ok, err := auth.AuthenticateRequest(r)
		reason := authn.Refusal(r.Context())
		if err != nil || ok != (tt.reason == nil) || !errors.Is(reason, tt.reason) || (outage.Of(reason) != nil) != tt.undecided {
			t.Errorf("%s: %v, %v, %v with the reason %v", tt.name, response, ok, err, reason)
		}
		want := "[]"
		if ok {
			want = "[" + id + " from 192.0.2.1]"
		}
		if got := fmt.Sprint(tt.known.uses); got != want {
			t.Errorf("%s: uses %s, want %s", tt.name, got, want)
		}
	}
}

// bearers authenticates every token as one user.
type bearers struct{ user.DefaultInfo }

func (b *bearers) AuthenticateToken(context.Context, string) (*authenticator.Response, bool, error) {
	return &authenticator.Response{User: &b.DefaultInfo}, true, nil
}

// TestUsesOfTokens checks which tokens are noted as used, by a request and by a review.
func TestUsesOfTokens(t *testing.T) {
	t.Parallel()
	const robot = "system:serviceaccount:ns:robot"
	node := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup}}
	onNode := map[string][]string{token.ExtraCredentialID: {"JTI=1"}, token.ExtraNodeName: {"n1"}}
	for _, tt := range []struct {
		name             string
		bearer           user.DefaultInfo
		reviewer         user.Info
		request, reviews string // what is noted
	}{
		{"a token", user.DefaultInfo{Name: robot, Extra: map[string][]string{token.ExtraCredentialID: {"JTI=1"}}}, &user.DefaultInfo{Name: "vault"}, "[1 from 192.0.2.1]", "[1 from ]"},
		{"of another issuer", user.DefaultInfo{Name: "jane", Extra: map[string][]string{token.ExtraCredentialID: {"JTI=1"}}}, &user.DefaultInfo{Name: "vault"}, "[]", "[]"},
		{"without an ID", user.DefaultInfo{Name: robot}, &user.DefaultInfo{Name: "vault"}, "[]", "[]"},
		{"of a pod on the node", user.DefaultInfo{Name: robot, Extra: onNode}, node, "[1 from 192.0.2.1]", "[]"},
		{"of a pod, at another server", user.DefaultInfo{Name: robot, Extra: onNode}, &user.DefaultInfo{Name: "vault"}, "[1 from 192.0.2.1]", "[1 from ]"},
		{"at a node", user.DefaultInfo{Name: robot, Extra: map[string][]string{token.ExtraCredentialID: {"JTI=1"}}}, node, "[1 from 192.0.2.1]", "[1 from ]"},
	} {
		requested, known := &credentials{}, &credentials{}
		auth := authn.NewRequest(authn.RequestConfig{Tokens: &bearers{tt.bearer}, Guard: authn.NewGuard(clock.RealClock{}), Credentials: requested})
		if _, ok, err := auth.AuthenticateRequest(bearer("Bearer x")); !ok || err != nil || fmt.Sprint(requested.uses) != tt.request {
			t.Errorf("%s: a request is %v, %v, with the uses %v, want %s", tt.name, ok, err, requested.uses, tt.request)
		}
		reviews := authn.NewReviewed(&bearers{tt.bearer}, known)
		if _, ok, err := reviews.AuthenticateToken(request.WithUser(t.Context(), tt.reviewer), "x"); !ok || err != nil || fmt.Sprint(known.uses) != tt.reviews {
			t.Errorf("%s: a review is %v, %v, with the uses %v, want %s", tt.name, ok, err, known.uses, tt.reviews)
		}
	}
}

// TestMinter checks who is noted as the minter of a token, for which requests.
func TestMinter(t *testing.T) {
	t.Parallel()
	auth := authn.NewRequest(authn.RequestConfig{
		Tokens: authn.NewToken(verifier{}, []string{"api"}), Guard: authn.NewGuard(clock.RealClock{}), Credentials: &credentials{},
	})
	for _, tt := range []struct {
		info request.RequestInfo
		want ledger.Minter
	}{
		{request.RequestInfo{Verb: "create", Resource: "serviceaccounts", Subresource: "token"}, ledger.Minter{
			User: "system:serviceaccount:ns:robot", UID: "u", Credential: "JTI=1", Address: "192.0.2.1", UserAgent: "kubectl",
		}},
		{request.RequestInfo{Verb: "create", Resource: "serviceaccounts"}, ledger.Minter{}},
	} {
		r := bearer("Bearer good")
		r.Header.Set("User-Agent", "kubectl\xff")
		r = r.WithContext(request.WithRequestInfo(r.Context(), &tt.info))
		if _, ok, err := auth.AuthenticateRequest(r); !ok || err != nil || issuance.MinterFrom(r.Context()) != tt.want {
			t.Errorf("%+v: %v, %v, minter %+v, want %+v", tt.info, ok, err, issuance.MinterFrom(r.Context()), tt.want)
		}
	}
}
