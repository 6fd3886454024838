package apiserver_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/token"
)

// journaled starts a replica and returns its journal.
func (s *site) journaled(t *testing.T) (*running, *issuance.Journal) {
	t.Helper()
	var journal *issuance.Journal
	r := s.startBy(t, nil, func(o apiserver.Options) (*apiserver.Server, error) {
		server, err := apiserver.New(o)
		if err == nil {
			journal = server.Journal()
		}
		return server, err
	})
	return r, journal
}

// signIn makes a request with a client configuration.
func signIn(t *testing.T, config *rest.Config) error {
	t.Helper()
	_, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	return err
}

func (r *running) bearer(text string) *rest.Config {
	c := rest.CopyConfig(r.anonymous)
	c.BearerToken = text
	return c
}

// issueAt returns a new token of the account app, and its ID.
func issueAt(t *testing.T, r *running, options metav1.CreateOptions) (text, id string) {
	t.Helper()
	made, err := kubernetes.NewForConfigOrDie(r.admin).CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "app",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3600)}}, options)
	if err != nil {
		t.Fatal(err)
	}
	_, id = token.Names(made.Status.Token)
	return made.Status.Token, id
}

func fingerprint(t *testing.T, text []byte) string {
	t.Helper()
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(digest[:])
}

// TestRevocationReachesReplicas uses each token at another replica than the one that issued it, and revokes a token and a certificate.
// The replica that wrote the revocation refuses them at once, the other one within a quarter of a second, and both after a
// restart.
func TestRevocationReachesReplicas(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first, journal := s.journaled(t)
	second, _ := s.journaled(t)
	accounts := kubernetes.NewForConfigOrDie(first.admin).CoreV1().ServiceAccounts("default")
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "app"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var kept, text, id string
	for range 20 {
		kept, _ = issueAt(t, second, metav1.CreateOptions{})
		if text, id = issueAt(t, first, metav1.CreateOptions{}); signIn(t, second.bearer(text)) != nil {
			t.Fatalf("a token of another replica: %v", signIn(t, second.bearer(text)))
		}
	}
	record, use, ok := journal.Memory.Token(id)
	want := ledger.Minter{User: "admin", Credential: "X509SHA256=" + fingerprint(t, s.admin.CertPEM), Address: "127.0.0.1", UserAgent: rest.DefaultKubernetesUserAgent()}
	if !ok || record.Namespace != "default" || record.Account != "app" || record.Minter != want {
		t.Errorf("the record is %+v, want the minter %+v", record, want)
	}
	if use.ID != "" {
		t.Errorf("before its use at this replica, the last use is %+v", use)
	}
	if err := signIn(t, first.bearer(text)); err != nil {
		t.Fatal(err)
	}
	if _, use, _ = journal.Memory.Token(id); use.Address != "127.0.0.1" {
		t.Errorf("after its use, the last use is %+v", use)
	}
	expires := time.Now().Add(time.Hour)
	person, err := s.ca.NewClient("jane", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	withCertificate := func(r *running) *rest.Config {
		c := rest.CopyConfig(r.anonymous)
		c.CertData, c.KeyData = person.CertPEM, person.KeyPEM
		return c
	}
	for _, r := range []*running{first, second} {
		if err := signIn(t, withCertificate(r)); err != nil {
			t.Fatalf("a certificate without a record: %v", err)
		}
	}
	err = journal.Revoke(t.Context(), []ledger.Revocation{{ID: id, Expires: expires}, {ID: fingerprint(t, person.CertPEM), Expires: expires}})
	if err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	refused := func(r *running) {
		t.Helper()
		if err := signIn(t, r.bearer(text)); !apierrors.IsUnauthorized(err) {
			t.Errorf("a revoked token: %v", err)
		}
		if err := signIn(t, withCertificate(r)); !apierrors.IsUnauthorized(err) {
			t.Errorf("a revoked certificate: %v", err)
		}
		if err := signIn(t, r.bearer(kept)); err != nil {
			t.Errorf("another token: %v", err)
		}
	}
	refused(first)
	for !apierrors.IsUnauthorized(signIn(t, second.bearer(text))) && time.Since(revoked) < 20*time.Second {
	}
	if took := time.Since(revoked); took > 250*time.Millisecond {
		t.Errorf("the other replica accepted the token for %v", took)
	}
	refused(second)
	first.stop()
	<-first.done
	again, _ := s.journaled(t)
	refused(again)
}

// TestDryRunRecordsNothing checks a request for a token that is not issued.
func TestDryRunRecordsNothing(t *testing.T) {
	t.Parallel()
	r, journal := newSite(t).journaled(t)
	accounts := kubernetes.NewForConfigOrDie(r.admin).CoreV1().ServiceAccounts("default")
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "app"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	issueAt(t, r, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if page, _ := journal.Memory.Select(ledger.Query{}); len(page) > 0 {
		t.Errorf("a dry run recorded %+v", page)
	}
	if text, _ := issueAt(t, r, metav1.CreateOptions{}); signIn(t, r.bearer(text)) != nil {
		t.Error("the token after the dry run is refused")
	}
	if page, _ := journal.Memory.Select(ledger.Query{}); len(page) != 1 {
		t.Errorf("one token has the records %+v", page)
	}
}
