package certificatesigningrequest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	testclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/registry/certificatesigningrequest"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/pki"
)

type csr = certificatesv1.CertificateSigningRequest

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newRequest(t testing.TB) []byte {
	t.Helper()
	_, request, err := pki.NewRequest("jane", []string{"dev"})
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func valid(request []byte) *csr {
	return &csr{
		ObjectMeta: metav1.ObjectMeta{Name: "jane:1", ResourceVersion: "1", CreationTimestamp: metav1.NewTime(now.Add(-5 * time.Minute))},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}, Username: "admin",
		},
	}
}

func condition(kind certificatesv1.RequestConditionType, status corev1.ConditionStatus) certificatesv1.CertificateSigningRequestCondition {
	return certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: status}
}

var (
	approved = condition(certificatesv1.CertificateApproved, corev1.ConditionTrue)
	denied   = condition(certificatesv1.CertificateDenied, corev1.ConditionTrue)
	failed   = condition(certificatesv1.CertificateFailed, corev1.ConditionTrue)
	custom   = condition("example.com/Seen", corev1.ConditionFalse)
)

// check requires exactly one fault that begins with want, or none if want is empty.
func check(t *testing.T, errs field.ErrorList, want string) {
	t.Helper()
	switch {
	case want == "" && len(errs) > 0:
		t.Errorf("refused: %v", errs)
	case want != "" && (len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), want)):
		t.Errorf("got %v, want one fault %q", errs, want)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	request := newRequest(t)
	broken := bytes.Replace(request, []byte("CERTIFICATE REQUEST"), []byte("CERTIFICATE"), 2)
	expires := func(seconds int32) func(*csr) { return func(r *csr) { r.Spec.ExpirationSeconds = &seconds } }
	signer := func(name string) func(*csr) { return func(r *csr) { r.Spec.SignerName = name } }
	usages := func(u ...certificatesv1.KeyUsage) func(*csr) { return func(r *csr) { r.Spec.Usages = u } }
	content := func(data []byte) func(*csr) { return func(r *csr) { r.Spec.Request = data } }
	for name, c := range map[string]struct {
		change func(*csr)
		want   string
	}{
		"as it should be":         {func(*csr) {}, ""},
		"name with a colon":       {func(r *csr) { r.Name = "node-csr:x" }, ""},
		"no name":                 {func(r *csr) { r.Name = "" }, "metadata.name: Required value"},
		"no request":              {content(nil), "spec.request: Invalid value"},
		"another PEM block":       {content(broken), "spec.request: Invalid value"},
		"cut short":               {content(request[:len(request)/2]), "spec.request: Invalid value"},
		"too large":               {content(append(bytes.Repeat([]byte("\n"), pki.MaxRequest), request...)), "spec.request: Too long"},
		"text before the block":   {content(append([]byte("subject: jane\n"), request...)), ""},
		"no usages":               {usages(), "spec.usages: Required value: usages must be provided"},
		"unknown usage":           {usages("flying"), "spec.usages[0]: Unsupported value"},
		"usage twice":             {usages("client auth", "client auth"), "spec.usages[1]: Duplicate value"},
		"usage of another signer": {usages("server auth"), ""},
		"ten minutes":             {expires(600), ""},
		"less than ten minutes":   {expires(599), "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)"},
		"negative":                {expires(-1), "spec.expirationSeconds: Invalid value"},
		"no signer":               {signer(""), "spec.signerName: Required value"},
		"legacy signer":           {signer("kubernetes.io/legacy-unknown"), "spec.signerName: Invalid value"},
		"signer without slash":    {signer("kubernetes.io"), "spec.signerName: Invalid value"},
		"two slashes":             {signer("a.b/c/d"), "spec.signerName: Invalid value"},
		"domain of one label":     {signer("kubernetes/c"), "spec.signerName: Invalid value: \"kubernetes\": should be a domain"},
		"domain in upper case":    {signer("A.b/c"), "spec.signerName: Invalid value: \"A.b\": validating label \"A\""},
		"empty path":              {signer("a.b/"), "spec.signerName: Invalid value"},
		"path with dots":          {signer("a.b/c.d-e"), ""},
		"long domain":             {signer(strings.Repeat("a.", 127) + "b/c"), "spec.signerName: Too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := valid(request)
			c.change(r)
			check(t, certificatesigningrequest.Validate(r), c.want)
		})
	}
}

func TestValidateRefusesForgedSignature(t *testing.T) {
	t.Parallel()
	request := newRequest(t)
	parsed, err := pki.ParseRequest(request)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(parsed.Raw, []byte("jane"), []byte("root"), 1)
	check(t, certificatesigningrequest.Validate(valid(encode("CERTIFICATE REQUEST", forged))), "spec.request: Invalid value")
}

func TestValidateUpdate(t *testing.T) {
	t.Parallel()
	request := newRequest(t)
	certificate := selfSigned(t)
	state := func(certificate []byte, conditions ...certificatesv1.CertificateSigningRequestCondition) certificatesv1.CertificateSigningRequestStatus {
		return certificatesv1.CertificateSigningRequestStatus{Certificate: certificate, Conditions: conditions}
	}
	for name, c := range map[string]struct {
		old, updated certificatesv1.CertificateSigningRequestStatus
		want         string
	}{
		"approve":                     {state(nil), state(nil, approved), ""},
		"deny":                        {state(nil), state(nil, denied), ""},
		"fail after approval":         {state(nil, approved), state(nil, approved, failed), ""},
		"issue":                       {state(nil, approved), state(certificate, approved), ""},
		"custom condition":            {state(nil, approved), state(nil, approved, custom), ""},
		"custom condition removed":    {state(nil, custom), state(nil), ""},
		"approve and deny":            {state(nil), state(nil, approved, denied), "status.conditions[1].type: Invalid value"},
		"deny what is approved":       {state(nil, approved), state(nil, approved, denied), "status.conditions[1].type: Invalid value"},
		"approval removed":            {state(nil, approved), state(nil), "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""},
		"denial removed":              {state(nil, denied), state(nil), "status.conditions: Forbidden: updates may not remove a condition of type \"Denied\""},
		"failure removed":             {state(nil, failed), state(nil), "status.conditions: Forbidden: updates may not remove a condition of type \"Failed\""},
		"approved twice":              {state(nil), state(nil, approved, approved), "status.conditions[1].type: Duplicate value"},
		"not approved":                {state(nil), state(nil, condition("Approved", "False")), "status.conditions[0].status: Unsupported value"},
		"no status":                   {state(nil), state(nil, condition("Other", "")), "status.conditions[0].status: Required value"},
		"odd status":                  {state(nil), state(nil, condition("Other", "maybe")), "status.conditions[0].status: Unsupported value"},
		"no type":                     {state(nil), state(nil, condition("", "True")), "status.conditions[0].type: Required value"},
		"another certificate":         {state(certificate, approved), state(selfSigned(t), approved), "status.certificate: Forbidden"},
		"certificate removed":         {state(certificate, approved), state(nil, approved), "status.certificate: Forbidden"},
		"certificate that is none":    {state(nil, approved), state([]byte("junk"), approved), "status.certificate: Invalid value"},
		"key instead of certificate":  {state(nil, approved), state(encode("PRIVATE KEY", []byte("x")), approved), "status.certificate: Invalid value"},
		"certificate that is garbled": {state(nil, approved), state(encode("CERTIFICATE", []byte("x")), approved), "status.certificate: Invalid value"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, updated := valid(request), valid(request)
			old.Status, updated.Status = c.old, c.updated
			check(t, certificatesigningrequest.ValidateUpdate(updated, old), c.want)
		})
	}
}

func TestRow(t *testing.T) {
	t.Parallel()
	hour := int32(3600)
	for name, c := range map[string]struct {
		status certificatesv1.CertificateSigningRequestStatus
		want   string
	}{
		"new":    {certificatesv1.CertificateSigningRequestStatus{}, "Pending"},
		"yes":    {certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{approved}}, "Approved"},
		"no":     {certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{denied}}, "Denied"},
		"failed": {certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{approved, failed}}, "Approved,Failed"},
		"issued": {certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{approved}, Certificate: []byte("x")}, "Approved,Issued"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := valid(nil)
			r.Status, r.Spec.ExpirationSeconds = c.status, &hour
			want := []any{"jane:1", "5m", "kubernetes.io/kube-apiserver-client", "admin", "60m", c.want}
			if diff := cmp.Diff(want, certificatesigningrequest.Row(r, now)); diff != "" {
				t.Errorf("cells (-want +got):\n%s", diff)
			}
		})
	}
	if got := certificatesigningrequest.Row(valid(nil), now)[4]; got != "<none>" {
		t.Errorf("duration of a request that names none = %v", got)
	}
	if got := len(certificatesigningrequest.Columns); got != 6 {
		t.Errorf("%d columns", got)
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func selfSigned(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE", der)
}

// as returns the context of a request of the user jane.
func as(t testing.TB) context.Context {
	return request.WithUser(storagetest.In(t, ""), &user.DefaultInfo{
		Name: "jane", UID: "7", Groups: []string{"dev"}, Extra: map[string][]string{"example.com/k": {"v"}},
	})
}

func update(t *testing.T, part rest.Updater, name string, change func(*csr)) *csr {
	t.Helper()
	got, _, err := part.Update(as(t), name, rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, stored runtime.Object) (runtime.Object, error) {
		r := stored.DeepCopyObject().(*csr)
		change(r)
		return r, nil
	}), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return got.(*csr)
}

func TestStorage(t *testing.T) {
	t.Parallel()
	storage := storagetest.Start(t)
	nobody := func(string) bool { return false }
	stores := storage.Requests(storage, nobody, testclock.NewFakePassiveClock(now))
	sent := valid(newRequest(t))
	sent.ResourceVersion = ""
	sent.Spec.Username, sent.Spec.Groups, sent.Spec.UID = "root", []string{"system:masters"}, "0"
	sent.Status.Conditions = append(sent.Status.Conditions, approved)
	made, err := stores.Request.Create(as(t), sent, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first := made.(*csr).DeepCopy()
	if s := first.Spec; s.Username != "jane" || s.UID != "7" || len(s.Groups) != 1 || s.Groups[0] != "dev" || len(s.Extra) != 1 {
		t.Errorf("requester = %s %s %v %v, want the caller", s.Username, s.UID, s.Groups, s.Extra)
	}
	if len(first.Status.Conditions) > 0 {
		t.Errorf("created with conditions %v", first.Status.Conditions)
	}
	forge := func(r *csr) {
		r.Spec.Username, r.Spec.SignerName = "root", "example.com/other"
		r.Status.Certificate = selfSigned(t)
		r.Status.Conditions = append(r.Status.Conditions, approved, failed)
	}
	got := update(t, stores.Request, first.Name, func(r *csr) { forge(r); r.Labels = map[string]string{"a": "b"} })
	same(t, "PUT", got, first.Spec, certificatesv1.CertificateSigningRequestStatus{})

	got = update(t, stores.Status, first.Name, func(r *csr) { forge(r); r.Status.Certificate = nil })
	want := stamped(failed)
	same(t, "PUT status", got, first.Spec, certificatesv1.CertificateSigningRequestStatus{Conditions: want})

	got = update(t, stores.Approval, first.Name, func(r *csr) { forge(r); r.Status.Conditions = r.Status.Conditions[1:2] })
	same(t, "PUT approval", got, first.Spec, certificatesv1.CertificateSigningRequestStatus{Conditions: append(stamped(approved), want...)})
}

func stamped(c certificatesv1.CertificateSigningRequestCondition) []certificatesv1.CertificateSigningRequestCondition {
	c.LastUpdateTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	return []certificatesv1.CertificateSigningRequestCondition{c}
}

func same(t *testing.T, what string, got *csr, spec certificatesv1.CertificateSigningRequestSpec, status certificatesv1.CertificateSigningRequestStatus) {
	t.Helper()
	if diff := cmp.Diff(spec, got.Spec); diff != "" {
		t.Errorf("%s changed the spec (-want +got):\n%s", what, diff)
	}
	if diff := cmp.Diff(status, got.Status, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: status (-want +got):\n%s", what, diff)
	}
}
