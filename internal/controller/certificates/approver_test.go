package certificates

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/authz"
	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/bootstrap"
)

// defaults authorize by the policy that an authority starts with.
func defaults() *authz.Authorizer {
	index := rbac.NewIndex()
	for _, r := range bootstrap.ClusterRoles() {
		index.SetClusterRole(r)
	}
	for _, b := range bootstrap.ClusterRoleBindings() {
		index.SetClusterRoleBinding(b)
	}
	return authz.New(index)
}

// asked is a certificate request with its requester.
type asked struct {
	x509.CertificateRequest
	certificatesv1.CertificateSigningRequest
}

// joining is the request of a machine with a bootstrap token for the certificate of node one.
func joining() *asked {
	a := &asked{}
	a.Name, a.UID = "csr-1", "u"
	a.CertificateRequest.Subject = pkix.Name{CommonName: "system:node:one", Organization: []string{"system:nodes"}}
	a.CertificateSigningRequest.Spec = certificatesv1.CertificateSigningRequestSpec{
		SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
		Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		Username:   "system:bootstrap:abcdef", Groups: []string{"system:bootstrappers", "system:authenticated"},
	}
	return a
}

func renewing(a *asked) {
	a.Spec.Username, a.Spec.Groups = "system:node:one", []string{"system:nodes", "system:authenticated"}
}

func (a *asked) signed(t testing.TB) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &a.CertificateRequest, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.Spec.Request == nil {
		a.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	return &a.CertificateSigningRequest
}

// taken is the Taken of a server that clients reach by one name and two addresses.
func taken(name string) bool { return name == "authority" || name == "10.0.0.1" || name == "127.0.0.1" }

// serving turns the request into a request of node one for a serving certificate.
func serving(a *asked) {
	renewing(a)
	a.Spec.SignerName = certificatesv1.KubeletServingSignerName
	a.Spec.Usages[1] = certificatesv1.UsageServerAuth
	a.DNSNames, a.IPAddresses = []string{"one"}, []net.IP{{10, 0, 0, 2}}
}

func TestDecideServing(t *testing.T) {
	t.Parallel()
	for why, test := range map[string]struct {
		change  func(*asked)
		approve bool
	}{
		"its own":           {func(*asked) {}, true},
		"its address alone": {func(a *asked) { a.DNSNames = nil }, true},
		"its name alone":    {func(a *asked) { a.IPAddresses = nil }, true},
		"loopback":          {func(a *asked) { a.IPAddresses = []net.IP{{127, 0, 0, 1}} }, true},
		"with a key of RSA": {func(a *asked) { a.Spec.Usages = append(a.Spec.Usages, certificatesv1.UsageKeyEncipherment) }, true},
		"nowhere":           {func(a *asked) { a.DNSNames, a.IPAddresses = nil, nil }, false},
		"another node asks": {func(a *asked) { a.Spec.Username = "system:node:two" }, false},
		"a machine that joins asks": {func(a *asked) {
			a.Spec.Username, a.Spec.Groups = "system:bootstrap:abcdef", []string{"system:bootstrappers"}
		}, false},
		"a person of that name":   {func(a *asked) { a.Spec.Groups = []string{"system:authenticated"} }, false},
		"the administrator asks":  {func(a *asked) { a.Spec.Username, a.Spec.Groups = "admin", []string{"system:masters"} }, false},
		"for another node":        {func(a *asked) { a.CertificateRequest.Subject.CommonName = "system:node:two" }, false},
		"for no node":             {func(a *asked) { a.CertificateRequest.Subject.CommonName = "one" }, false},
		"masters":                 {func(a *asked) { a.CertificateRequest.Subject.Organization = []string{"system:masters"} }, false},
		"masters too":             {func(a *asked) { a.CertificateRequest.Subject.Organization = []string{"system:masters", "system:nodes"} }, false},
		"a name not its own":      {func(a *asked) { a.DNSNames = append(a.DNSNames, "two") }, false},
		"a wildcard":              {func(a *asked) { a.DNSNames = []string{"*"} }, false},
		"the authority's address": {func(a *asked) { a.IPAddresses = append(a.IPAddresses, net.IP{10, 0, 0, 1}) }, false},
		"the authority's name": {func(a *asked) {
			a.Spec.Username, a.CertificateRequest.Subject.CommonName, a.DNSNames = "system:node:authority", "system:node:authority", []string{"authority"}
		}, false},
		"a node that is called like every name of a domain": {func(a *asked) {
			a.Spec.Username, a.CertificateRequest.Subject.CommonName, a.DNSNames = "system:node:*.example.com", "system:node:*.example.com", []string{"*.example.com"}
		}, false},
		"every address":     {func(a *asked) { a.IPAddresses = []net.IP{net.IPv6unspecified} }, false},
		"an e-mail address": {func(a *asked) { a.EmailAddresses = []string{"a@b"} }, false},
		"a URI":             {func(a *asked) { a.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }, false},
		"a client's too":    {func(a *asked) { a.Spec.Usages = append(a.Spec.Usages, certificatesv1.UsageClientAuth) }, false},
		"a client's":        {func(a *asked) { a.Spec.Usages[1] = certificatesv1.UsageClientAuth }, false},
	} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			a := joining()
			serving(a)
			test.change(a)
			got, err := Decide(t.Context(), a.signed(t), defaults(), taken)
			if (got != nil) != test.approve || err != nil {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	a := joining()
	serving(a)
	none := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionNoOpinion, "", nil
	})
	if got, err := Decide(t.Context(), a.signed(t), none, taken); got != nil || !errors.Is(err, ErrNotAllowed) {
		t.Errorf("without policy: %+v, %v", got, err)
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	const (
		joined  = "Auto approving kubelet client certificate after SubjectAccessReview."
		renewed = "Auto approving self kubelet client certificate after SubjectAccessReview."
	)
	condition := func(c certificatesv1.RequestConditionType) func(*asked) {
		return func(a *asked) {
			a.CertificateSigningRequest.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: c, Status: corev1.ConditionTrue}}
		}
	}
	for _, test := range []struct {
		why     string
		change  func(*asked)
		approve string
		err     string
	}{
		{"joins", func(*asked) {}, joined, ""},
		{"joins with a key of RSA", func(a *asked) { a.Spec.Usages = append(a.Spec.Usages, certificatesv1.UsageKeyEncipherment) }, joined, ""},
		{"renews", renewing, renewed, ""},
		{"renews another's", func(a *asked) { renewing(a); a.Spec.Username = "system:node:two" }, "", "policy does not allow"},
		{"a person", func(a *asked) { a.Spec.Username, a.Spec.Groups = "ann", []string{"system:authenticated"} }, "", "policy does not allow"},
		{"a node's name without its group", func(a *asked) { a.Spec.Username, a.Spec.Groups = "system:node:one", nil }, "", "policy does not allow"},
		{"approved", condition(certificatesv1.CertificateApproved), "", ""},
		{"denied", condition(certificatesv1.CertificateDenied), "", ""},
		{"failed", condition(certificatesv1.CertificateFailed), "", ""},
		{"signed", func(a *asked) { a.CertificateSigningRequest.Status.Certificate = []byte("x") }, "", ""},
		{"another signer", func(a *asked) { a.Spec.SignerName = certificatesv1.KubeAPIServerClientSignerName }, "", ""},
		{"no node", func(a *asked) { a.CertificateRequest.Subject.CommonName = "ann" }, "", ""},
		{"a node without a name", func(a *asked) { a.CertificateRequest.Subject.CommonName = "system:node:" }, "", ""},
		{"a node called by a wildcard", func(a *asked) { a.CertificateRequest.Subject.CommonName = "system:node:*.example.com" }, "", ""},
		{"no group", func(a *asked) { a.CertificateRequest.Subject.Organization = nil }, "", ""},
		{"masters", func(a *asked) { a.CertificateRequest.Subject.Organization = []string{"system:masters"} }, "", ""},
		{"masters too", func(a *asked) { a.CertificateRequest.Subject.Organization = []string{"system:masters", "system:nodes"} }, "", ""},
		{"a DNS name", func(a *asked) { a.DNSNames = []string{"x"} }, "", ""},
		{"an address", func(a *asked) { a.IPAddresses = []net.IP{{127, 0, 0, 1}} }, "", ""},
		{"an e-mail address", func(a *asked) { a.EmailAddresses = []string{"a@b"} }, "", ""},
		{"a URI", func(a *asked) { a.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }, "", ""},
		{"a server's certificate", func(a *asked) { a.Spec.Usages[1] = certificatesv1.UsageServerAuth }, "", ""},
		{"a server's certificate too", func(a *asked) { a.Spec.Usages = append(a.Spec.Usages, certificatesv1.UsageServerAuth) }, "", ""},
		{"fewer usages", func(a *asked) { a.Spec.Usages = a.Spec.Usages[1:] }, "", ""},
		{"no PEM", func(a *asked) { a.Spec.Request = []byte("x") }, "", "spec.request: PEM block type must be CERTIFICATE REQUEST"},
		{"another PEM", func(a *asked) { a.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"}) }, "", "spec.request: PEM block type must be CERTIFICATE REQUEST"},
		{"no request in it", func(a *asked) { a.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST"}) }, "", "spec.request: "},
	} {
		t.Run(test.why, func(t *testing.T) {
			t.Parallel()
			a := joining()
			test.change(a)
			got, err := Decide(t.Context(), a.signed(t), defaults(), taken)
			if (got != nil) != (test.approve != "") || got != nil && (got.Message != test.approve || got.Type != certificatesv1.CertificateApproved || got.Reason != "AutoApproved") {
				t.Errorf("got %+v", got)
			}
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, want %s", err, test.err)
			}
			if refused := strings.HasPrefix(test.err, "policy"); errors.Is(err, ErrNotAllowed) != refused {
				t.Errorf("%v is ErrNotAllowed: %v", err, !refused)
			}
		})
	}
}

func TestBrokenSignatureIsNotApproved(t *testing.T) {
	t.Parallel()
	csr := joining().signed(t)
	block, _ := pem.Decode(csr.Spec.Request)
	block.Bytes[len(block.Bytes)-1] ^= 1
	csr.Spec.Request = pem.EncodeToMemory(block)
	if got, err := Decide(t.Context(), csr, defaults(), taken); got != nil || err == nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestUndecidedRequestIsNotApproved(t *testing.T) {
	t.Parallel()
	stale := errors.New("stale")
	az := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionAllow, "", stale
	})
	if got, err := Decide(t.Context(), joining().signed(t), az, taken); got != nil || !errors.Is(err, stale) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzDecide(f *testing.F) {
	f.Add(joining().signed(f).Spec.Request)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	az := defaults()
	f.Fuzz(func(t *testing.T, text []byte) {
		a := joining()
		a.Spec.Request = text
		got, err := Decide(t.Context(), &a.CertificateSigningRequest, az, taken)
		if got != nil && err != nil {
			t.Error("approved with an error")
		}
	})
}

func admitAll(string, []string, []string) error { return nil }

func (s *site) newApprover(admits Admits, c clock.WithTicker, wrappers ...func(http.RoundTripper) http.RoundTripper) *Approver {
	return NewApprover(ApproverConfig{
		Client: s.Client(bootstrap.CertificateController, wrappers...), Authorizer: defaults(), Taken: taken, Admits: admits, Clock: c,
	})
}

// approver runs an approver on the requests of the cluster.
func (s *site) approver(t *testing.T, admits Admits, c clock.WithTicker) *Approver {
	t.Helper()
	a := s.newApprover(admits, c)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { a.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	return a
}

// await waits until the stored request has the conditions.
func (s *site) await(t *testing.T, name string, want ...certificatesv1.RequestConditionType) *csr {
	t.Helper()
	var got []certificatesv1.RequestConditionType
	var r *csr
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		r, got = s.get(t, name), nil
		for _, condition := range r.Status.Conditions {
			got = append(got, condition.Type)
		}
		return slices.Equal(got, want), nil
	})
	if err != nil {
		t.Fatalf("%s has the conditions %v, want %v", name, got, want)
	}
	return r
}

// TestEvictedRequesterIsNotApproved checks that a request is not approved while its requester is evicted.
func TestEvictedRequesterIsNotApproved(t *testing.T) {
	t.Parallel()
	var checks atomic.Int32
	checked := make(chan struct{})
	admits := func(string, []string, []string) error {
		if checks.Add(1) == 1 {
			close(checked)
			return fmt.Errorf("%w: long ago", nodeaccess.ErrEvicted)
		}
		return nil
	}
	now := testclock.NewFakeClock(time.Unix(1000, 0))
	s := newSite(t, now, nil)
	r := s.put(t, joining().signed(t))
	c := s.approver(t, admits, now)
	c.Set(r.DeepCopy())
	<-checked
	c.Set(r.DeepCopy())
	s.await(t, r.Name, certificatesv1.CertificateApproved)
	if checks.Load() != 2 {
		t.Errorf("approved after %d checks", checks.Load())
	}
}

func TestApproverApproves(t *testing.T) {
	t.Parallel()
	now := testclock.NewFakeClock(time.Unix(1000, 0))
	s := newSite(t, now, nil)
	for name, request := range map[string]func(*asked){"client": func(*asked) {}, "serving": serving} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := joining()
			request(a)
			r := s.put(t, a.signed(t))
			s.approver(t, admitAll, now).Set(r)
			got := s.await(t, r.Name, certificatesv1.CertificateApproved)
			if c := got.Status.Conditions[0]; c.LastUpdateTime.Unix() != 1000 || c.Reason != "AutoApproved" {
				t.Errorf("got %+v", c)
			}
		})
	}
}

// TestApproverDoesNotOverrule changes a request between the approver's decision and its write.
func TestApproverDoesNotOverrule(t *testing.T) {
	t.Parallel()
	now := testclock.NewFakeClock(time.Unix(1000, 0))
	s := newSite(t, now, nil)
	for name, test := range map[string]struct {
		race func(*csr)
		want []certificatesv1.RequestConditionType
	}{
		"denied meanwhile": {func(r *csr) {
			r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Status: corev1.ConditionTrue}}
		}, []certificatesv1.RequestConditionType{certificatesv1.CertificateDenied}},
		"another of its name meanwhile": {func(r *csr) { r.UID = "v" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := s.put(t, joining().signed(t))
			reads := 0
			c := s.newApprover(admitAll, now, controllertest.Before(http.MethodGet, func(string) error {
				if reads++; reads == 2 { // the read that the write is based on
					s.replace(t, r.Name, test.race)
				}
				return nil
			}))
			if err := c.check(t.Context(), r.Name); err != nil || reads != 2 {
				t.Fatalf("%v after %d reads", err, reads)
			}
			s.await(t, r.Name, test.want...)
		})
	}
}
