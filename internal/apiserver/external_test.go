package apiserver_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	externaljwtv1 "k8s.io/externaljwt/apis/v1"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/signingkey"
)

// externalSigner is a signer with one key that signs and one that it keeps for older tokens.
type externalSigner struct {
	externaljwtv1.UnimplementedExternalJWTSignerServer
	key, old *signingkey.PrivateKey
	socket   string
	server   *grpc.Server

	mu   sync.Mutex
	lies bool
}

func newKey(t *testing.T, alg signingkey.Algorithm) *signingkey.PrivateKey {
	t.Helper()
	key, err := signingkey.Generate(alg)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newExternalSigner(t *testing.T) *externalSigner {
	t.Helper()
	dir, err := os.MkdirTemp("", "signer") // short, because the path of a socket is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	e := &externalSigner{key: newKey(t, signingkey.ES384), old: newKey(t, signingkey.ES256), socket: filepath.Join(dir, "s")}
	e.start(t)
	return e
}

func (e *externalSigner) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	e.server = grpc.NewServer()
	externaljwtv1.RegisterExternalJWTSignerServer(e.server, e)
	server := e.server
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
}

func (e *externalSigner) lie(lies bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lies = lies
}

func (e *externalSigner) Sign(_ context.Context, r *externaljwtv1.SignJWTRequest) (*externaljwtv1.SignJWTResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES384","kid":"hsm-1","typ":"JWT"}`))
	claims := r.GetClaims()
	if e.lies {
		claims = "e30"
	}
	signature, err := e.key.Sign([]byte(header + "." + claims))
	return &externaljwtv1.SignJWTResponse{Header: header, Signature: base64.RawURLEncoding.EncodeToString(signature)}, err
}

func (e *externalSigner) FetchKeys(context.Context, *externaljwtv1.FetchKeysRequest) (*externaljwtv1.FetchKeysResponse, error) {
	key, err := x509.MarshalPKIXPublicKey(e.key.Public().Key())
	old, oldErr := x509.MarshalPKIXPublicKey(e.old.Public().Key())
	return &externaljwtv1.FetchKeysResponse{
		Keys:          []*externaljwtv1.Key{{KeyId: "hsm-1", Key: key}, {KeyId: e.old.ID(), Key: old, ExcludeFromOidcDiscovery: true}},
		DataTimestamp: timestamppb.Now(), RefreshHintSeconds: 60,
	}, errors.Join(err, oldErr)
}

func (*externalSigner) Metadata(context.Context, *externaljwtv1.MetadataRequest) (*externaljwtv1.MetadataResponse, error) {
	return &externaljwtv1.MetadataResponse{MaxTokenExpirationSeconds: 1200}, nil
}

// signWith makes an external signer sign.
func signWith(e *externalSigner) func(*apiserver.Options) {
	return func(o *apiserver.Options) {
		o.ServiceAccounts.SigningKeyFiles, o.ServiceAccounts.SigningEndpoint = nil, e.socket
	}
}

// TestExternalSigner runs an authority whose tokens an external signer signs. The signer ends, starts again and lies.
func TestExternalSigner(t *testing.T) {
	t.Parallel()
	s, e := newSite(t), newExternalSigner(t)
	r := s.start(t, signWith(e))
	admin := kubernetes.NewForConfigOrDie(r.admin)
	if _, err := admin.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "app"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	issue := func() (*authenticationv1.TokenRequest, error) {
		// client-go repeats a request that is answered with Retry-After; this one shows the first answer.
		body := admin.CoreV1().RESTClient().Post().Namespace("default").Resource("serviceaccounts").Name("app").SubResource("token").MaxRetries(0)
		answer := &authenticationv1.TokenRequest{}
		return answer, body.Body(&authenticationv1.TokenRequest{}).Do(t.Context()).Into(answer)
	}
	first, err := issue()
	if err != nil {
		t.Fatal(err)
	}
	if *first.Spec.ExpirationSeconds != 1200 {
		t.Errorf("a token lives for %d seconds, and the signer's limit is 1200", *first.Spec.ExpirationSeconds)
	}
	nobody, health := callerBy(t, r.anonymous, "", nil), callerBy(t, r.admin, "", nil)
	checkPublished(t, nobody, first.Status.Token)
	app := callerBy(t, r.anonymous, first.Status.Token, nil)
	app.await(t, "/api", http.StatusOK)

	e.server.Stop()
	nobody.await(t, "/readyz", http.StatusInternalServerError)
	if _, err := issue(); !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "the signer does not answer; try again") || strings.Contains(err.Error(), e.socket) {
		t.Errorf("while the signer is dead: %v", err)
	}
	if answer, text := app.ask(t, "/api", ""); answer.StatusCode != http.StatusOK {
		t.Errorf("a token while the signer is dead: %d %s", answer.StatusCode, text)
	}
	if _, text := health.ask(t, "/readyz?verbose", ""); !strings.Contains(text, "[-]external-signer failed") {
		t.Errorf("readyz: %s", text)
	}

	e.start(t)
	nobody.await(t, "/readyz", http.StatusOK)
	if _, err := issue(); err != nil {
		t.Errorf("after the restart of the signer: %v", err)
	}
	e.lie(true)
	if answer, err := issue(); !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "its signature is not one of its key") || answer.Status.Token != "" {
		t.Errorf("a signature over other claims: %v", err)
	}
	if _, text := health.ask(t, "/metrics", ""); !strings.Contains(text, `apiserver_externaljwt_sign_request_total{code="Refused"} 1`) ||
		!strings.Contains(text, `apiserver_externaljwt_sign_request_total{code="OK"} 2`) || !strings.Contains(text, "apiserver_externaljwt_fetch_keys_data_timestamp ") {
		t.Error("/metrics lacks the calls of the signer")
	}
}

// checkPublished verifies a token with go-jose, as a relying party does that knows the published documents alone.
func checkPublished(t *testing.T, nobody *caller, text string) {
	t.Helper()
	var provider struct {
		Algorithms []jose.SignatureAlgorithm `json:"id_token_signing_alg_values_supported"`
	}
	var keys jose.JSONWebKeySet
	_, discovery := nobody.ask(t, "/.well-known/openid-configuration", "")
	answer, jwks := nobody.ask(t, "/openid/v1/jwks", "")
	if err := errors.Join(json.Unmarshal([]byte(discovery), &provider), json.Unmarshal([]byte(jwks), &keys)); err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.ParseSigned(text, provider.Algorithms)
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.Claims(&keys, &jwt.Claims{}); err != nil || len(keys.Keys) != 1 || keys.Keys[0].KeyID != "hsm-1" || len(provider.Algorithms) != 1 {
		t.Errorf("%v, with %s and %s", err, discovery, jwks)
	}
	// The keys may be cached until they are fetched again, which the signer asks for after a minute.
	if control := answer.Header.Get("Cache-Control"); len(control) > len("public, max-age=60") {
		t.Errorf("Cache-Control %q", control)
	}
}

// TestExternalSignerKeepsOldTokens accepts a token of a key that the signer lists but does not publish.
func TestExternalSignerKeepsOldTokens(t *testing.T) {
	t.Parallel()
	s, e := newSite(t), newExternalSigner(t)
	old, err := e.old.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file("sa.key"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	before := s.start(t, nil)
	text := tokenOf(t, before.admin, "app")
	r := s.start(t, signWith(e))
	app := callerBy(t, r.anonymous, text, nil)
	app.await(t, "/api", http.StatusOK)
	_, jwks := app.ask(t, "/openid/v1/jwks", "")
	if strings.Contains(jwks, e.old.ID()) {
		t.Errorf("the excluded key is published: %s", jwks)
	}
	// The other authority learns of the signer's keys by no file, so it refuses the signer's tokens.
	unknown := tokenOf(t, rest.CopyConfig(r.admin), "app2")
	callerBy(t, before.anonymous, unknown, nil).await(t, "/api", http.StatusUnauthorized)
}

// TestExternalSignerAtStart checks what ends the start of an authority.
func TestExternalSignerAtStart(t *testing.T) {
	t.Parallel()
	s, e := newSite(t), newExternalSigner(t)
	for want, change := range map[string]func(*apiserver.Options){
		"its tokens live for at most 20m0s, and the configured limit is 21m0s": func(o *apiserver.Options) {
			o.ServiceAccounts.MaxTokenExpiration = 21 * time.Minute
		},
		"`serviceAccounts.signingEndpoint` and `serviceAccounts.signingKeyFiles` exclude each other": func(o *apiserver.Options) {
			o.ServiceAccounts.SigningKeyFiles = []string{s.file("sa.key")}
		},
		"`serviceAccounts.signingEndpoint` and `serviceAccounts.keyFiles` exclude each other": func(o *apiserver.Options) {
			o.ServiceAccounts.KeyFiles = []string{s.file("sa.key")}
		},
		"`serviceAccounts.signingEndpoint` and `serviceAccounts.audienceAlgorithms` exclude each other": func(o *apiserver.Options) {
			o.ServiceAccounts.AudienceAlgorithms = map[string]signingkey.Algorithm{"vault": signingkey.ES384}
		},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o := s.options(listener)
		signWith(e)(&o)
		change(&o)
		if _, err := apiserver.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		_ = listener.Close()
	}
}
