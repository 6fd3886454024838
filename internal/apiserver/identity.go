package apiserver

import (
	"context"
	"crypto/x509"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	apiserverconfig "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/anchor"
	"lanyard.dev/internal/apiserver/authn"
	"lanyard.dev/internal/apiserver/authn/oidc"
	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/serviceaccount"
	"lanyard.dev/internal/apiserver/streams"
	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/token"
)

// identity authenticates requests and tokens, and issues the tokens of service accounts.
type identity struct {
	requests  authenticator.Request
	tokens    authenticator.Token
	audiences authenticator.Audiences
	issuing   serviceaccount.TokenConfig
	// verifier verifies the tokens of service accounts.
	verifier *token.Verifier
	// present returns the credential of a request, to authenticate it again while the request lasts.
	present func(*http.Request) streams.Presented
	// evictions knows which certificates of nodes are no longer valid.
	evictions *nodeaccess.Evictions
}

// newIdentity returns the authenticators and the issuer for the given keys, issuers, stored objects and ledger. They learn of each
// change of a stored object before the write returns. Verifications and issued tokens are counted in m.
func newIdentity(o *Options, k *keys, t *tokenKeys, issuers *oidc.Authenticator, s *storage, journal *issuance.Journal, m *metrics.Metrics) (identity, error) {
	accounts := &o.ServiceAccounts
	signatures := token.NewSignatures()
	issuer, err := token.NewIssuer(accounts.Issuers[0], t.signer(signatures), clock.RealClock{})
	if err != nil {
		return identity{}, err
	}
	verifying, stored := newAnchors(s, o.Etcd.SoleWriter)
	config := token.VerifierConfig{Issuers: accounts.Issuers, Keys: t, Anchors: verifying, Ledger: journal, Clock: clock.RealClock{}, Signatures: signatures}
	if !o.Etcd.SoleWriter {
		config.Stored = stored
	}
	verifier, err := token.NewVerifier(config)
	if err != nil {
		return identity{}, err
	}
	verifies := t.guard(verifier)
	secrets := s.feed("secrets")
	joining := bootstraptoken.NewMemory(secrets, clock.RealClock{})
	secrets.Listen(joining)
	evictions := nodeaccess.NewEvictions(secrets)
	secrets.Listen(evictions)

	audiences := authenticator.Audiences(accounts.audiences())
	tokens := func(v authn.Verifier) authenticator.Token {
		own := authn.NewTokens(authn.NewToken(v, audiences), joining, audiences)
		if issuers == nil {
			return own
		}
		// A review of such a token shows the same groups as a request with it has.
		return union.New(own, group.NewTokenGroupAdder(issuers, []string{user.AllAuthenticated}))
	}
	counted := tokens(m.CountVerifications(verifies))
	var anonymous *apiserverconfig.AnonymousAuthConfig
	if issuers != nil {
		anonymous = issuers.Anonymous()
	}
	var clients authn.ClientCA
	if k.clients != nil {
		clients = func() (x509.VerifyOptions, bool) { return k.clients.VerifyOptions() }
	}
	requests := authn.RequestConfig{
		Tokens: counted, CA: clients, Nodes: evictions, Anonymous: anonymous, Guard: authn.NewGuard(clock.RealClock{}), Credentials: journal,
	}
	again := requests
	again.Tokens = tokens(verifies)
	presents := authn.Presents(again, audiences, clock.RealClock{})
	return identity{
		requests: authn.NewRequest(requests), present: func(r *http.Request) streams.Presented { return presents(r) },
		tokens: authn.NewReviewed(counted, journal), audiences: audiences, verifier: verifier, evictions: evictions,
		issuing: serviceaccount.TokenConfig{
			Issuer: m.CountIssued(issuer), Recorder: journal, Anchors: stored, Audiences: audiences,
			Lifetimes:  t.lifetimes(accounts),
			Algorithms: accounts.AudienceAlgorithms,
		},
	}, nil
}

// newAnchors returns two views of the objects that tokens are bound to: one for verifying tokens and one for issuing them.
// Issuing reads from storage if other processes write to it too.
func newAnchors(s *storage, soleWriter bool) (verifying, issuing anchor.Anchors) {
	index := func(resource string, store *registry.Store) *anchor.Index {
		var read anchor.Read
		if !soleWriter {
			read = readFrom(store)
		}
		feed := s.feed(resource)
		made := anchor.NewIndex(feed, read)
		feed.Listen(made)
		return made
	}
	accounts, pods := index("serviceaccounts", s.stores.serviceAccounts), index("pods", s.stores.pods)
	secrets, nodes := index("secrets", s.stores.secrets), index("nodes", s.stores.nodes)
	return anchor.Remembered(accounts, pods, secrets, nodes), anchor.Stored(accounts, pods, secrets, nodes)
}

// readFrom reads from etcd itself, past every cache.
func readFrom(store *registry.Store) anchor.Read {
	return func(ctx context.Context, name types.NamespacedName) (runtime.Object, bool, error) {
		obj, err := store.Get(request.WithNamespace(ctx, name.Namespace), name.Name, &metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, false, nil
		}
		return obj, err == nil, err
	}
}
