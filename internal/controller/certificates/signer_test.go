package certificates

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/rbac/bootstrap"
)

type csr = certificatesv1.CertificateSigningRequest

const (
	clientSigner = certificatesv1.KubeAPIServerClientSignerName
	nodeSigner   = certificatesv1.KubeAPIServerClientKubeletSignerName

	servingSigner = certificatesv1.KubeletServingSignerName
)

var clientAuth = []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}

func TestMain(m *testing.M) { os.Exit(controllertest.TestRoles(m, bootstrap.CertificateController)) }

var requestResource = schema.GroupResource{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests"}

// site is a cluster that serves certificate signing requests.
type site struct{ *controllertest.Cluster }

func newSite(t *testing.T, c clock.PassiveClock, admits func(user string, groups, notBefore []string) error) *site {
	t.Helper()
	inputs := api.Inputs{Signed: func(string) bool { return true }, Clock: c}
	s := &site{controllertest.NewCluster(t, storagetest.Start(t), controllertest.Config{Inputs: inputs, Admits: admits}, requestResource)}
	s.Run(t)
	return s
}

// put stores a request as it is, which need not be valid, under the name of the test, and returns it as it is stored.
func (s *site) put(t *testing.T, r *csr) *csr {
	t.Helper()
	r.Name = strings.ToLower(strings.NewReplacer("/", "-", "_", "-", ",", "", "'", "").Replace(t.Name()))
	r.UID = types.UID(r.Name)
	key, err := s.Store(requestResource).KeyFunc(storagetest.In(t, ""), r.Name)
	if err != nil {
		t.Fatal(err)
	}
	stored := &csr{}
	if err := s.Store(requestResource).Storage.Create(storagetest.In(t, ""), key, r, stored, 0, false); err != nil {
		t.Fatal(err)
	}
	return stored
}

// replace changes a stored request without any validation.
func (s *site) replace(t *testing.T, name string, change func(*csr)) {
	t.Helper()
	key, err := s.Store(requestResource).KeyFunc(storagetest.In(t, ""), name)
	if err != nil {
		t.Fatal(err)
	}
	update := storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) { change(obj.(*csr)); return obj, nil })
	if err := s.Store(requestResource).Storage.GuaranteedUpdate(storagetest.In(t, ""), key, &csr{}, false, nil, update, false, nil); err != nil {
		t.Error(err)
	}
}

// get returns a stored request; nil if there is none.
func (s *site) get(t *testing.T, name string) *csr {
	t.Helper()
	found, err := s.Store(requestResource).Get(storagetest.In(t, ""), name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return found.(*csr)
}

func (s *site) signer(ca CA, nodes Nodes, longest time.Duration, now time.Time) *Signer {
	return NewSigner(SignerConfig{
		Client: s.Client(bootstrap.CertificateController), CA: ca, Nodes: nodes, Longest: longest, Clock: testclock.NewFakeClock(now),
		Record: func(context.Context, ledger.Certificate) error { return nil },
	})
}

func condition(kind certificatesv1.RequestConditionType, at time.Time) certificatesv1.CertificateSigningRequestCondition {
	return certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, LastUpdateTime: metav1.NewTime(at)}
}

func newCA(t *testing.T, now time.Time) CA {
	t.Helper()
	dir := t.TempDir()
	if _, err := pki.EnsureAuthority(dir+"/ca.crt", dir+"/ca.key", "ca", now); err != nil {
		t.Fatal(err)
	}
	return func(string) (*pki.Signer, error) { return pki.LoadSigner(dir+"/ca.crt", dir+"/ca.key") }
}

func newRequest(t *testing.T, name string, groups ...string) []byte {
	t.Helper()
	_, data, err := pki.NewRequest(name, groups)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func approved(t *testing.T, signerName string, usages []certificatesv1.KeyUsage, now time.Time) *csr {
	t.Helper()
	return &csr{
		ObjectMeta: metav1.ObjectMeta{Name: "r", UID: "1", CreationTimestamp: metav1.NewTime(now)},
		Spec:       certificatesv1.CertificateSigningRequestSpec{Request: newRequest(t, "jane", "dev"), SignerName: signerName, Usages: usages},
		Status:     certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{condition(certificatesv1.CertificateApproved, now)}},
	}
}

// TestSign signs requests: each gets a certificate of some validity, or a failure, or stays as it is.
func TestSign(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	ca, s := newCA(t, now), newSite(t, testclock.NewFakeClock(now), nil)
	seconds := func(n int32) func(*csr) { return func(r *csr) { r.Spec.ExpirationSeconds = &n } }
	with := func(kind certificatesv1.RequestConditionType) func(*csr) {
		return func(r *csr) { r.Status.Conditions = append(r.Status.Conditions, condition(kind, now)) }
	}
	for name, c := range map[string]struct {
		ca     CA
		change func(*csr)
		life   time.Duration
		failed string
	}{
		"as long as possible":   {ca, func(*csr) {}, 48 * time.Hour, ""},
		"an hour":               {ca, seconds(3600), time.Hour, ""},
		"longer than allowed":   {ca, seconds(7 * 86400), 48 * time.Hour, ""},
		"shorter than sensible": {ca, seconds(1), 10 * time.Minute, ""},
		"server certificate":    {ca, func(r *csr) { r.Spec.Usages = []certificatesv1.KeyUsage{"server auth"} }, 0, "invalid usage for client certificate: server auth"},
		"no client certificate": {ca, func(r *csr) { r.Spec.Usages = []certificatesv1.KeyUsage{"digital signature"} }, 0, "missing required usage for client certificate: client auth"},
		"masters":               {ca, func(r *csr) { r.Spec.Request = newRequest(t, "eve", "system:masters") }, 0, "subject organization system:masters is not allowed"},
		"garbled":               {ca, func(r *csr) { r.Spec.Request = []byte("x") }, 0, "PEM block type must be CERTIFICATE REQUEST"},
		"person as node":        {ca, func(r *csr) { r.Spec.SignerName = nodeSigner }, 0, "subject organization is not system:nodes"},
		"another signer":        {ca, func(r *csr) { r.Spec.SignerName = "example.com/mine" }, 0, ""},
		"person as server":      {ca, func(r *csr) { r.Spec.SignerName = servingSigner }, 0, "subject organization is not system:nodes"},
		"no CA":                 {nil, func(*csr) {}, 0, ""},
		"pending":               {ca, func(r *csr) { r.Status.Conditions = nil }, 0, ""},
		"denied":                {ca, with(certificatesv1.CertificateDenied), 0, ""},
		"failed before":         {ca, with(certificatesv1.CertificateFailed), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := approved(t, clientSigner, clientAuth, now)
			c.change(r)
			r = s.put(t, r)
			if err := s.signer(c.ca, noEvictions(), 48*time.Hour, now).sign(t.Context(), r.Name); err != nil {
				t.Fatal(err)
			}
			r = s.get(t, r.Name)
			checkLife(t, r.Status.Certificate, now, c.life)
			if got := failure(r, now); name != "failed before" && got != c.failed {
				t.Errorf("failure %q, want %q", got, c.failed)
			}
		})
	}
}

func failure(r *csr, now time.Time) string {
	for _, c := range r.Status.Conditions {
		if c.Type == certificatesv1.CertificateFailed && c.Reason == "SignerValidationFailure" && c.LastUpdateTime.Time.Equal(now) {
			return c.Message
		}
	}
	return ""
}

func checkLife(t *testing.T, certificate []byte, now time.Time, want time.Duration) {
	t.Helper()
	if len(certificate) == 0 {
		if want != 0 {
			t.Error("not signed")
		}
		return
	}
	chain, err := pki.ParseChain(certificate)
	if err != nil {
		t.Fatal(err)
	}
	cert := chain[0]
	if got := cert.NotAfter.Sub(now); got != want {
		t.Errorf("valid for %v, want %v", got, want)
	}
	if cert.Subject.CommonName != "jane" || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || cert.IsCA {
		t.Errorf("subject %v, usages %v, CA %v", cert.Subject, cert.ExtKeyUsage, cert.IsCA)
	}
}

// TestSignOnce checks that a certificate is never replaced.
func TestSignOnce(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newSite(t, testclock.NewFakeClock(now), nil)
	controller, r := s.signer(newCA(t, now), noEvictions(), 0, now), s.put(t, approved(t, clientSigner, clientAuth, now))
	if err := controller.sign(t.Context(), r.Name); err != nil {
		t.Fatal(err)
	}
	first := string(s.get(t, r.Name).Status.Certificate)
	if err := controller.sign(t.Context(), r.Name); err != nil || first == "" || string(s.get(t, r.Name).Status.Certificate) != first {
		t.Errorf("signed again: %v", err)
	}
	if err := controller.sign(t.Context(), "gone"); err != nil {
		t.Errorf("a request that is gone: %v", err)
	}
}

type fresh struct{}

func (fresh) Fresh() error { return nil }

func noEvictions() *nodeaccess.Evictions { return nodeaccess.NewEvictions(fresh{}) }

// TestSignForAnEvictedNode checks the certificates of a node that joins again: a new certificate is valid from the second after
// the eviction, and is not signed before. A request that was made with an old certificate fails.
func TestSignForAnEvictedNode(t *testing.T) {
	t.Parallel()
	at := time.Now().Truncate(time.Second)
	evictions, record := noEvictions(), nodeaccess.NewEviction("n1")
	record.Name, record.CreationTimestamp = "e", metav1.NewTime(at)
	evictions.Set(record)
	s := newSite(t, testclock.NewFakeClock(at), evictions.AdmitsUser)
	const joining, renewing = "system:bootstrap:abcdef", "system:node:n1"
	for _, c := range []struct {
		name, node, requester, requesterFrom string
		after                                time.Duration
		notBefore                            time.Time
		failed                               string
	}{
		{"joins a minute later", "n1", joining, "", time.Minute, at.Add(time.Second), ""},
		{"joins an hour later", "n1", joining, "", time.Hour, at.Add(time.Hour - 5*time.Minute), ""},
		{"joins the very second", "n1", joining, "", 500 * time.Millisecond, time.Time{}, ""},
		{"another node", "n2", joining, "", time.Second, at.Add(time.Second - 5*time.Minute), ""},
		{"asked for by the evicted", "n1", renewing, at.Add(-time.Hour).Format(time.RFC3339), time.Minute, time.Time{}, "the node was evicted"},
		{"asked for by the evicted for another", "n2", renewing, at.Format(time.RFC3339), time.Minute, time.Time{}, "the node was evicted"},
		{"renewed by who joined since", "n1", renewing, at.Add(time.Second).Format(time.RFC3339), time.Hour, at.Add(time.Hour - 5*time.Minute), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			now := at.Add(c.after)
			r := approved(t, nodeSigner, clientUsages[:2], now)
			r.Spec.Request = newRequest(t, "system:node:"+c.node, "system:nodes")
			r.Spec.Username = c.requester
			if c.requesterFrom != "" {
				r.Spec.Groups, r.Spec.Extra = []string{"system:nodes"}, map[string]certificatesv1.ExtraValue{nodeaccess.ExtraNotBefore: {c.requesterFrom}}
			}
			r = s.put(t, r)
			err := s.signer(newCA(t, at), evictions, 0, now).sign(t.Context(), r.Name)
			if errors.Is(err, controller.ErrNotYet) != (c.after < time.Second) || err != nil && c.after >= time.Second {
				t.Fatal(err)
			}
			r = s.get(t, r.Name)
			if got := failure(r, now); (got != "") != (c.failed != "") || !strings.Contains(got, c.failed) {
				t.Errorf("failure %q, want %q", got, c.failed)
			}
			if chain, err := pki.ParseChain(r.Status.Certificate); (err == nil) != !c.notBefore.IsZero() || err == nil && !chain[0].NotBefore.Equal(c.notBefore) {
				t.Errorf("signed %v, want from %v", err == nil, c.notBefore)
			}
		})
	}
}

func TestCAError(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newSite(t, testclock.NewFakeClock(now), nil)
	r := s.put(t, approved(t, clientSigner, clientAuth, now))
	broken := errors.New("no such file")
	err := s.signer(func(string) (*pki.Signer, error) { return nil, broken }, noEvictions(), 0, now).sign(t.Context(), r.Name)
	if r = s.get(t, r.Name); !errors.Is(err, broken) || len(r.Status.Conditions) != 1 {
		t.Errorf("got %v and %v, want to try again", err, r.Status.Conditions)
	}
}

func TestNodeRule(t *testing.T) {
	t.Parallel()
	base := func() *x509.CertificateRequest {
		r := &x509.CertificateRequest{}
		r.Subject.CommonName, r.Subject.Organization = "system:node:n1", []string{"system:nodes"}
		return r
	}
	all := clientUsages
	for name, c := range map[string]struct {
		change func(*x509.CertificateRequest)
		usages []certificatesv1.KeyUsage
		want   string
	}{
		"RSA usages":              {func(*x509.CertificateRequest) {}, all, ""},
		"ECDSA usages":            {func(*x509.CertificateRequest) {}, all[:2], ""},
		"client auth alone":       {func(*x509.CertificateRequest) {}, all[:1], "usages did not match"},
		"server auth besides":     {func(*x509.CertificateRequest) {}, append([]certificatesv1.KeyUsage{"server auth"}, all...), "usages did not match"},
		"no organization":         {func(r *x509.CertificateRequest) { r.Subject.Organization = nil }, all, "subject organization is not system:nodes"},
		"two organizations":       {func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:nodes", "system:masters"} }, all, "subject organization is not system:nodes"},
		"a person":                {func(r *x509.CertificateRequest) { r.Subject.CommonName = "jane" }, all, "subject common name does not begin"},
		"DNS name":                {func(r *x509.CertificateRequest) { r.DNSNames = []string{"a"} }, all, "DNS subjectAltNames"},
		"e-mail address":          {func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a"} }, all, "email subjectAltNames"},
		"IP address":              {func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{{1, 2, 3, 4}} }, all, "IP subjectAltNames"},
		"more after the nodename": {func(r *x509.CertificateRequest) { r.Subject.CommonName += ".example.com" }, all, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := base()
			c.change(r)
			err := node(r, c.usages)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestNodeServingRule(t *testing.T) {
	t.Parallel()
	all := servingUsages
	for name, c := range map[string]struct {
		change func(*x509.CertificateRequest)
		usages []certificatesv1.KeyUsage
		want   string
	}{
		"RSA usages":          {func(*x509.CertificateRequest) {}, all, ""},
		"ECDSA usages":        {func(*x509.CertificateRequest) {}, all[:2], ""},
		"DNS name alone":      {func(r *x509.CertificateRequest) { r.IPAddresses = nil }, all, ""},
		"IP address alone":    {func(r *x509.CertificateRequest) { r.DNSNames = nil }, all, ""},
		"nowhere":             {func(r *x509.CertificateRequest) { r.DNSNames, r.IPAddresses = nil, nil }, all, "DNS or IP subjectAltName is required"},
		"server auth alone":   {func(*x509.CertificateRequest) {}, all[:1], "usages did not match"},
		"client auth besides": {func(*x509.CertificateRequest) {}, append([]certificatesv1.KeyUsage{"client auth"}, all...), "usages did not match"},
		"no organization":     {func(r *x509.CertificateRequest) { r.Subject.Organization = nil }, all, "subject organization is not system:nodes"},
		"two organizations":   {func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:nodes", "x"} }, all, "subject organization is not system:nodes"},
		"a person":            {func(r *x509.CertificateRequest) { r.Subject.CommonName = "jane" }, all, "subject common name does not begin"},
		"e-mail address":      {func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a"} }, all, "email subjectAltNames"},
		"URI":                 {func(r *x509.CertificateRequest) { r.URIs = []*url.URL{{Scheme: "spiffe"}} }, all, "URI subjectAltNames"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &x509.CertificateRequest{DNSNames: []string{"n1"}, IPAddresses: []net.IP{{10, 0, 0, 1}}}
			r.Subject.CommonName, r.Subject.Organization = "system:node:n1", []string{"system:nodes"}
			c.change(r)
			err := nodeServing(r, c.usages)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if usage, extended := keyUsages(all); usage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment || len(extended) != 1 || extended[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("got usage %v, %v", usage, extended)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	decided := func(kind certificatesv1.RequestConditionType, at time.Time, certificate ...byte) *csr {
		return &csr{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(ago(100 * time.Hour))},
			Status: certificatesv1.CertificateSigningRequestStatus{
				Conditions: []certificatesv1.CertificateSigningRequestCondition{condition(kind, at)}, Certificate: certificate,
			},
		}
	}
	pending := func(at time.Time) *csr {
		return &csr{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(at)}}
	}
	short, s := issued(t, now, 10*time.Minute), newSite(t, testclock.NewFakeClock(now), nil)
	const minute = time.Minute
	for name, c := range map[string]struct {
		r    *csr
		at   time.Time
		over bool
	}{
		"pending, a day":           {pending(ago(24*time.Hour - minute)), now, false},
		"pending, longer":          {pending(ago(24*time.Hour + minute)), now, true},
		"denied, an hour":          {decided("Denied", ago(59*minute)), now, false},
		"denied, longer":           {decided("Denied", ago(61*minute)), now, true},
		"failed, longer":           {decided("Failed", ago(61*minute)), now, true},
		"issued, an hour":          {decided("Approved", ago(59*minute), 'x'), now, false},
		"issued, longer":           {decided("Approved", ago(61*minute), 'x'), now, true},
		"approved, never signed":   {decided("Approved", ago(99*time.Hour)), now, false},
		"certificate still valid":  {decided("Approved", now, short...), now.Add(9 * minute), false},
		"certificate has expired":  {decided("Approved", now, short...), now.Add(11 * minute), true},
		"condition without a time": {decided("Denied", time.Time{}), now, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.put(t, c.r)
			if err := s.signer(nil, noEvictions(), 0, c.at).clean(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := s.get(t, r.Name) == nil; got != c.over {
				t.Errorf("removed %v, want %v", got, c.over)
			}
		})
	}
}

func issued(t *testing.T, now time.Time, life time.Duration) []byte {
	t.Helper()
	ca, err := newCA(t, now)(certificatesv1.KubeAPIServerClientSignerName)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := pki.ParseRequest(newRequest(t, "jane"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := ca.Sign(asked, pki.Terms{Life: life}, now)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
