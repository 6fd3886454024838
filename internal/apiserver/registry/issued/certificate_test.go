package issued_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/ledger"
)

// certificates returns a ledger with certificates of alice and of a node, which was requested with that of alice.
func certificates() (f *fixture, alice, node string) {
	alice, node = strings.Repeat("a", 64), strings.Repeat("b", 64)
	f = newFixture()
	f.apply(ledger.Batch{Certificates: []ledger.Certificate{{
		ID: alice, User: "alice", Groups: []string{"staff", "admins"}, SignerName: "kubernetes.io/kube-apiserver-client", Request: "alice-1",
		Issued: issuedAt, Expires: issuedAt.Add(time.Hour), Minter: ledger.Minter{User: "root"},
	}, {
		ID: node, User: "system:node:n1", SignerName: "kubernetes.io/kube-apiserver-client-kubelet", Issued: issuedAt, Expires: issuedAt.Add(time.Hour),
		Minter: ledger.Minter{User: "alice", Credential: "X509SHA256=" + alice},
	}}})
	return f, alice, node
}

// TestCertificateObject compares the object of a record with all its fields.
func TestCertificateObject(t *testing.T) {
	t.Parallel()
	f, alice, _ := certificates()
	got, err := f.certificates().Get(in(t, ""), alice, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &identity.IssuedCertificate{
		ObjectMeta: metav1.ObjectMeta{
			Name: alice, ResourceVersion: "11", CreationTimestamp: metav1.NewTime(issuedAt),
			Labels: map[string]string{"identity.lanyard.dev/signer": "kubernetes.io.kube-apiserver-client"},
		},
		Spec: identity.IssuedCertificateSpec{
			Username: "alice", Groups: []string{"staff", "admins"}, SignerName: "kubernetes.io/kube-apiserver-client", Request: "alice-1",
			ExpirationTimestamp: metav1.NewTime(issuedAt.Add(time.Hour)), MintedBy: identity.Minter{Username: "root"},
		},
		Status: identity.IssuedCertificateStatus{Phase: identity.PhaseActive},
	}
	want.UID = got.(*identity.IssuedCertificate).UID
	if diff := cmp.Diff(want, got); diff != "" || string(want.UID) != alice {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCertificateSelectors(t *testing.T) {
	t.Parallel()
	f, alice, node := certificates()
	for _, test := range []struct{ field, label, want string }{
		{"", "", alice + " " + node},
		{"metadata.name=" + node, "", node},
		{"metadata.namespace=x", "", ""},
		{"spec.username=alice", "", alice},
		{"spec.groups=admins", "", alice},
		{"spec.groups!=admins", "", node},
		{"spec.signerName=kubernetes.io/kube-apiserver-client", "", alice},
		{"spec.request=alice-1", "", alice},
		{"spec.mintedBy.username=alice", "", node},
		{"spec.mintedBy.credentialID=" + alice, "", node},
		{"status.phase=Invalid", "", ""},
		{"", "identity.lanyard.dev/signer=kubernetes.io.kube-apiserver-client", alice},
	} {
		list, err := f.certificates().List(in(t, ""), selectors(t, test.field, test.label))
		if err != nil {
			t.Fatalf("%+v: %v", test, err)
		}
		var got []string
		for _, item := range list.(*identity.IssuedCertificateList).Items {
			got = append(got, item.Name)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%+v: got %q", test, got)
		}
	}
}

// TestCertificateRevocation checks the pages of certificates, and the event of a deletion.
func TestCertificateRevocation(t *testing.T) {
	t.Parallel()
	f, alice, node := certificates()
	list, err := f.certificates().List(in(t, ""), &internalversion.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	list, err = f.certificates().List(in(t, ""), &internalversion.ListOptions{Limit: 1, Continue: list.(*identity.IssuedCertificateList).Continue})
	if items := list.(*identity.IssuedCertificateList).Items; err != nil || len(items) != 1 || items[0].Name != node {
		t.Errorf("the second page: %v, %v", list, err)
	}
	w, err := f.certificates().Watch(in(t, ""), &internalversion.ListOptions{ResourceVersion: "11"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	f.issue(sample("a", "prod", "web")) // no event of this kind
	if _, _, err := f.certificates().Delete(in(t, ""), alice, nil, nil); err != nil {
		t.Fatal(err)
	}
	event := <-w.ResultChan()
	if object, ok := event.Object.(*identity.IssuedCertificate); event.Type != watch.Deleted || !ok || object.Name != alice || object.ResourceVersion != "13" {
		t.Errorf("event %s %v", event.Type, event.Object)
	}
	if _, err := f.certificates().Get(in(t, ""), alice, nil); !apierrors.IsNotFound(err) {
		t.Errorf("a revoked certificate: %v", err)
	}
}
