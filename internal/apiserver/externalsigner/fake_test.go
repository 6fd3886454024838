package externalsigner

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
	externaljwtv1 "k8s.io/externaljwt/apis/v1"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

// All tests share these keys, because generating RSA keys takes long.
var (
	es256 = sync.OnceValue(func() *signingkey.PrivateKey { return generate(signingkey.ES256) })
	next  = sync.OnceValue(func() *signingkey.PrivateKey { return generate(signingkey.ES256) })
	rs256 = sync.OnceValue(func() *signingkey.PrivateKey { return generate(signingkey.RS256) })
)

func generate(alg signingkey.Algorithm) *signingkey.PrivateKey {
	key, err := signingkey.Generate(alg)
	if err != nil {
		panic(err)
	}
	return key
}

// fakeSigner is a signer with keys of its own, behind a real gRPC server on a unix socket.
type fakeSigner struct {
	externaljwtv1.UnimplementedExternalJWTSignerServer
	socket string

	mu       sync.Mutex
	keys     []*externaljwtv1.Key
	data     *timestamppb.Timestamp
	hint     int64
	lifetime int64
	sign     func(ctx context.Context, claims string) (*externaljwtv1.SignJWTResponse, error)
	fetching func(ctx context.Context) // called by FetchKeys
	fetches  int
	server   *grpc.Server
}

// newFakeSigner returns a signer that signs with the key under its name "first", and that is not started.
func newFakeSigner(t testing.TB, key *signingkey.PrivateKey) *fakeSigner {
	t.Helper()
	dir, err := os.MkdirTemp("", "signer") // short, because the path of a socket is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f := &fakeSigner{
		socket: filepath.Join(dir, "s"), data: timestamppb.New(time.Unix(1_700_000_000, 0)), hint: 3600, lifetime: 7200,
		keys: []*externaljwtv1.Key{published("first", key)}, sign: signsWith(key, "first"),
	}
	return f
}

func published(name string, key *signingkey.PrivateKey) *externaljwtv1.Key {
	der, err := x509.MarshalPKIXPublicKey(key.Public().Key())
	if err != nil {
		panic(err)
	}
	return &externaljwtv1.Key{KeyId: name, Key: der}
}

func excluded(name string, key *signingkey.PrivateKey) *externaljwtv1.Key {
	k := published(name, key)
	k.ExcludeFromOidcDiscovery = true
	return k
}

func signsWith(key *signingkey.PrivateKey, name string) func(context.Context, string) (*externaljwtv1.SignJWTResponse, error) {
	return func(_ context.Context, claims string) (*externaljwtv1.SignJWTResponse, error) {
		return answerOf(key, `{"alg":"`+string(key.Algorithm())+`","kid":"`+name+`","typ":"JWT"}`, claims), nil
	}
}

// answerOf returns an answer with a header, and a signature of key over header and claims.
func answerOf(key *signingkey.PrivateKey, header, claims string) *externaljwtv1.SignJWTResponse {
	encoded := base64.RawURLEncoding.EncodeToString([]byte(header))
	signature, err := key.Sign([]byte(encoded + "." + claims))
	if err != nil {
		panic(err)
	}
	return &externaljwtv1.SignJWTResponse{Header: encoded, Signature: base64.RawURLEncoding.EncodeToString(signature)}
}

// change changes the fields of the signer while it runs.
func (f *fakeSigner) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeSigner) fetchCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fetches
}

// start serves until stop is called or the test ends.
func (f *fakeSigner) start(t testing.TB) {
	t.Helper()
	_ = os.Remove(f.socket) // a signer that was killed leaves its socket
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	externaljwtv1.RegisterExternalJWTSignerServer(server, f)
	f.change(func() { f.server = server })
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
}

func (f *fakeSigner) stop() { f.server.Stop() }

func (f *fakeSigner) Sign(ctx context.Context, r *externaljwtv1.SignJWTRequest) (*externaljwtv1.SignJWTResponse, error) {
	f.mu.Lock()
	sign := f.sign
	f.mu.Unlock()
	return sign(ctx, r.GetClaims())
}

func (f *fakeSigner) FetchKeys(ctx context.Context, _ *externaljwtv1.FetchKeysRequest) (*externaljwtv1.FetchKeysResponse, error) {
	f.mu.Lock()
	f.fetches++
	fetching := f.fetching
	answer := &externaljwtv1.FetchKeysResponse{Keys: f.keys, DataTimestamp: f.data, RefreshHintSeconds: f.hint}
	f.mu.Unlock()
	if fetching != nil {
		fetching(ctx)
	}
	return answer, nil
}

func (f *fakeSigner) Metadata(context.Context, *externaljwtv1.MetadataRequest) (*externaljwtv1.MetadataResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &externaljwtv1.MetadataResponse{MaxTokenExpirationSeconds: f.lifetime}, nil
}

// connect returns the connection to the signer. It ends with the test.
func (f *fakeSigner) connect(t testing.TB, change ...func(*Config)) *Signer {
	t.Helper()
	s, err := f.tryConnect(t, change...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return s
}

func (f *fakeSigner) tryConnect(t testing.TB, change ...func(*Config)) (*Signer, error) {
	t.Helper()
	c := Config{Socket: f.socket, Metrics: metrics.New().NewSigner(), StartTimeout: time.Minute, CallTimeout: time.Minute}
	for _, one := range change {
		one(&c)
	}
	return Connect(t.Context(), c)
}

// authority is an issuer and a verifier with the keys of a signer.
type authority struct {
	issuer   *token.Issuer
	verifier Verifier
}

const issuerURL = "https://issuer.example"

// existing is an Anchors in which every account exists with the UID 1.
type existing struct{ token.Anchors }

func (existing) ServiceAccount(context.Context, string, string) (token.Anchor, bool, error) {
	return token.Anchor{UID: "1"}, true, nil
}

// recorded is a Ledger with a record of every token.
type recorded struct{}

func (recorded) Check(context.Context, string, *[sha256.Size]byte) error { return nil }

func newAuthority(t testing.TB, s *Signer) *authority {
	t.Helper()
	issuer, err := token.NewIssuer(issuerURL, s, clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := token.NewVerifier(token.VerifierConfig{Issuers: []string{issuerURL}, Keys: s, Anchors: existing{}, Ledger: recorded{}, Clock: clock.RealClock{}})
	if err != nil {
		t.Fatal(err)
	}
	return &authority{issuer: issuer, verifier: s.Verifier(v)}
}

func (a *authority) issue(ctx context.Context) (string, *token.Claims, error) {
	return a.issuer.Issue(ctx, token.Request{
		Namespace: "ns", ServiceAccount: token.Ref{Name: "robot", UID: "1"}, Audiences: []string{issuerURL}, Lifetime: time.Hour,
	})
}

func (a *authority) mustIssue(t testing.TB) string {
	t.Helper()
	text, _, err := a.issue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (a *authority) verify(t testing.TB, text string) error {
	t.Helper()
	_, err := a.verifier.Verify(t.Context(), text, []string{issuerURL})
	return err
}

// wants fails the test unless err is want.
func wants(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// await waits until a condition holds.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
