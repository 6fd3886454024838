package certificatesigningrequest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	testclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/registry/storagetest"
)

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

// as is a request's context of jane.
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
		t.Errorf("made with conditions %v", first.Status.Conditions)
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
