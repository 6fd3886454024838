package authn_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/asn1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/authn"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/rbac/bootstrap"
	"lanyard.dev/internal/token"
)

// authority is a CA that issues client certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	root *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	return &authority{key: key, root: sign(t, template, template, key, key)}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, subject, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &subject.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// issue returns a client certificate that is valid for the given time from now.
func (a *authority) issue(t *testing.T, subject pkix.Name, valid time.Duration) *x509.Certificate {
	t.Helper()
	return sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(valid),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.root, newKey(t), a.key)
}

func (a *authority) options() x509.VerifyOptions {
	roots := x509.NewCertPool()
	roots.AddCert(a.root)
	return x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

// verifier accepts one token, "good", for the audiences api and other.
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

// headers is a request with the names and values in turn.
func headers(pairs ...string) *http.Request {
	r := bearer("")
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Add(pairs[i], pairs[i+1])
	}
	return r
}

// webSocket returns a request for a WebSocket. Each argument is a header with subprotocols.
func webSocket(protocols ...string) *http.Request {
	r := headers("Connection", "Upgrade", "Upgrade", "websocket")
	for _, p := range protocols {
		r.Header.Add("Sec-WebSocket-Protocol", p)
	}
	return r
}

func protocolOf(token string) string {
	return "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
}

func newRequest(ca authn.ClientCA) authenticator.Request {
	return newRequestWith(ca, nil)
}

func newRequestWith(ca authn.ClientCA, nodes authn.NodeCertificates) authenticator.Request {
	return authn.NewRequest(authn.RequestConfig{
		Tokens: authn.NewToken(verifier{}, []string{"api"}), CA: ca, Nodes: nodes, Guard: authn.NewGuard(clock.RealClock{}), Credentials: &credentials{},
	})
}

func withCertificate(r *http.Request, c *x509.Certificate) *http.Request {
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
	return r
}

// TestRequest checks who the caller is, for each kind of credential and for malformed ones.
func TestRequest(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	admin := ca.issue(t, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, time.Hour)
	expired := ca.issue(t, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, -time.Minute)
	forged := newAuthority(t).issue(t, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, time.Hour)
	controller := ca.issue(t, pkix.Name{CommonName: bootstrap.ControllerUser(bootstrap.ClusterRoleAggregationController)}, time.Hour)
	options := func() (x509.VerifyOptions, bool) { return ca.options(), true }
	none := func() (x509.VerifyOptions, bool) { return x509.VerifyOptions{}, false }

	const refused, robot = "(refused)", "system:serviceaccount:ns:robot"
	robots := []string{"system:serviceaccounts", "system:authenticated"}
	for _, test := range []struct {
		name    string
		ca      authn.ClientCA
		request *http.Request
		user    string
		groups  []string
	}{
		{"no credential", options, bearer(""), "system:anonymous", []string{"system:unauthenticated"}},
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
		{"certificate of a controller", options, withCertificate(bearer(""), controller), refused, nil},
		{"bad certificate and token", options, withCertificate(bearer("Bearer good"), forged), "system:serviceaccount:ns:robot", []string{"system:serviceaccounts", "system:authenticated"}},
		{"bad certificate and bad token", options, withCertificate(bearer("Bearer junk"), forged), refused, nil},
		{"no client CA", nil, bearer("Bearer good"), "system:serviceaccount:ns:robot", []string{"system:serviceaccounts", "system:authenticated"}},
		{"certificate, no client CA now", none, withCertificate(bearer("Bearer junk"), admin), refused, nil},
		{"basic authentication", options, bearer("Basic YTpi"), refused, nil},
		{"another scheme", options, bearer("Token good"), refused, nil},
		{"a scheme alone", options, bearer("Bearer"), refused, nil},
		{"a token alone", options, bearer("good"), refused, nil},
		{"no token after the scheme", options, bearer("Bearer "), refused, nil},
		{"two spaces", options, bearer("Bearer  good"), refused, nil},
		{"a tab", options, bearer("Bearer\tgood"), refused, nil},
		{"more after the token", options, bearer("Bearer good more"), refused, nil},
		{"beyond ASCII", options, bearer("Bearer g\u00f6\u00f6d"), refused, nil},
		{"an empty header", options, headers("Authorization", ""), refused, nil},
		{"two tokens", options, headers("Authorization", "Bearer good", "Authorization", "Bearer good"), refused, nil},
		{"certificate and basic authentication", options, withCertificate(bearer("Basic YTpi"), admin), "admin", []string{"system:masters", "system:authenticated"}},
		{"WebSocket token", options, webSocket("v1, " + protocolOf("good")), robot, robots},
		{"WebSocket token in a line of its own", options, webSocket("v1", protocolOf("good")), robot, robots},
		{"junk WebSocket token", options, webSocket("v1, " + protocolOf("junk")), refused, nil},
		{"no WebSocket token", options, webSocket("v1"), "system:anonymous", []string{"system:unauthenticated"}},
		{"WebSocket token and no other protocol", options, webSocket(protocolOf("good")), refused, nil},
		{"two WebSocket tokens", options, webSocket("v1, " + protocolOf("good") + "," + protocolOf("good")), refused, nil},
		{"empty WebSocket token", options, webSocket("v1, " + protocolOf("")), refused, nil},
		{"WebSocket token not in base64url", options, webSocket("v1, " + protocolOf("") + "go=="), refused, nil},
		{"WebSocket token without a WebSocket", options, headers("Sec-WebSocket-Protocol", "v1, "+protocolOf("good")), refused, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			auth := newRequest(test.ca)
			credential := newCredentials(test.ca, clock.RealClock{})(test.request)
			response, ok, err := auth.AuthenticateRequest(test.request)
			again, errAgain := credential.User(t.Context())
			if strings.Contains(test.request.Header.Get("Sec-WebSocket-Protocol"), protocolOf("")) {
				t.Error("handlers receive the WebSocket token")
			}
			if reason := authn.Refusal(test.request.Context()); (test.user == refused) != (reason != nil) {
				t.Errorf("the reason of a refusal is %v", reason)
			}
			if test.user == refused {
				if ok || err != nil {
					t.Fatalf("want a refusal, got %+v, %v, %v", response, ok, err)
				}
				if errAgain == nil {
					t.Errorf("the credential is accepted when it is authenticated again: %+v", again)
				}
				return
			}
			if err != nil || !ok {
				t.Fatalf("got %v, %v", ok, err)
			}
			if errAgain != nil || !reflect.DeepEqual(again, response.User) {
				t.Errorf("authenticated again: %+v, %v; want %+v", again, errAgain, response.User)
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

// evicting refuses the node "thief", cannot decide about the node "unknown", and records its calls.
type evicting struct{ calls []string }

func (e *evicting) Admits(node string, notBefore time.Time) error {
	e.calls = append(e.calls, node+" "+notBefore.UTC().Format(time.RFC3339))
	switch node {
	case "thief":
		return nodeaccess.ErrEvicted
	case "unknown":
		return errBehind
	}
	return nil
}

var errBehind = errors.New("the latest writes are not known")

// TestUnusualCertificates checks a certificate without a name, one that cannot be converted, and one of a node while evictions
// are not configured.
func TestUnusualCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	clients := func() (x509.VerifyOptions, bool) { return ca.options(), true }
	nameless := ca.issue(t, pkix.Name{Organization: []string{"system:nodes"}}, time.Hour)
	for _, nodes := range []authn.NodeCertificates{&evicting{}, nil} {
		response, ok, err := newRequestWith(clients, nodes).AuthenticateRequest(withCertificate(bearer(""), nameless))
		if err != nil || ok && response.User.GetName() != user.Anonymous {
			t.Errorf("a certificate without a name, nodes=%v: %+v, %v", nodes, response, err)
		}
	}
	uid := pkix.AttributeTypeAndValue{Type: asn1.X509UID(), Value: "1"}
	two := ca.issue(t, pkix.Name{CommonName: "two", ExtraNames: []pkix.AttributeTypeAndValue{uid, uid}}, time.Hour)
	for _, nodes := range []authn.NodeCertificates{&evicting{}, nil} {
		r := withCertificate(bearer(""), two)
		if response, ok, err := newRequestWith(clients, nodes).AuthenticateRequest(r); ok || err != nil || authn.Refusal(r.Context()) == nil {
			t.Errorf("a certificate with two UIDs, nodes=%v: %+v, %v, %v", nodes, response, ok, err)
		}
	}
	thief := ca.issue(t, pkix.Name{CommonName: "system:node:thief", Organization: []string{"system:nodes"}}, time.Hour)
	response, ok, err := newRequestWith(clients, nil).AuthenticateRequest(withCertificate(bearer(""), thief))
	if err != nil || !ok || response.User.GetName() != "system:node:thief" || len(response.User.GetExtra()[nodeaccess.ExtraNotBefore]) != 0 {
		t.Errorf("a node without evictions: %+v, %v, %v", response, ok, err)
	}
}

// TestUnknownEvictions checks that a node's certificate is neither accepted nor refused while evictions are not known.
func TestUnknownEvictions(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	certificate := ca.issue(t, pkix.Name{CommonName: "system:node:unknown", Organization: []string{"system:nodes"}}, time.Hour)
	auth := authn.NewRequest(authn.RequestConfig{
		Tokens: authn.NewToken(verifier{}, []string{"api"}), CA: func() (x509.VerifyOptions, bool) { return ca.options(), true },
		Nodes: &evicting{}, Guard: authn.NewGuard(clock.RealClock{}), Credentials: &credentials{},
	})
	r := withCertificate(bearer(""), certificate)
	_, ok, err := auth.AuthenticateRequest(r)
	if reason := authn.Refusal(r.Context()); ok || err != nil || outage.Of(reason) == nil || !errors.Is(reason, errBehind) {
		t.Errorf("%v, %v with the reason %v, want an outage", ok, err, reason)
	}
}

// TestCertificatesOfNodes checks that evictions concern nodes only, and that an evicted node is not anonymous.
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
		auth := newRequestWith(func() (x509.VerifyOptions, bool) { return ca.options(), true }, nodes)
		request := withCertificate(bearer(""), certificate)
		response, ok, _ := auth.AuthenticateRequest(request)
		err := authn.Refusal(request.Context())
		if test.refused != (err != nil) || test.refused == ok || test.refused && !errors.Is(err, nodeaccess.ErrEvicted) {
			t.Errorf("%s of %v: %v, %v", test.name, test.groups, ok, err)
		}
		if test.refused || err != nil {
			continue
		}
		since := certificate.NotBefore.UTC().Format(time.RFC3339)
		got := response.User.GetExtra()[nodeaccess.ExtraNotBefore]
		if test.isNode != slices.Equal(got, []string{since}) || test.isNode != slices.Equal(nodes.calls, []string{"n " + since}) {
			t.Errorf("%s of %v: extra %v, calls %v", test.name, test.groups, got, nodes.calls)
		}
	}
}

// TestCredentialsStayOutOfErrors checks that a refusal does not quote the token, and that handlers do not receive it.
func TestCredentialsStayOutOfErrors(t *testing.T) {
	t.Parallel()
	auth := newRequest(nil)
	r := bearer("Bearer secret-junk-token")
	_, ok, err := auth.AuthenticateRequest(r)
	if reason := authn.Refusal(r.Context()); ok || err != nil || reason == nil || strings.Contains(reason.Error(), "secret-junk-token") {
		t.Errorf("got %v, %v, reason %v", ok, err, reason)
	}
	r = bearer("Bearer good")
	if _, ok, _ := auth.AuthenticateRequest(r); !ok || r.Header.Get("Authorization") != "" {
		t.Errorf("accepted=%v, and handlers receive %q", ok, r.Header.Get("Authorization"))
	}
}
