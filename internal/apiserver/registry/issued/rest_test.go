package issued_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/apiserver/registry/issued"
	"lanyard.dev/internal/ledger"
)

// TestObject compares the object of a record with all its fields.
func TestObject(t *testing.T) {
	t.Parallel()
	f := newFixture()
	f.issue(bound(sample("a", "prod", "web"), "web-1", "n1"))
	f.apply(ledger.Batch{Uses: []ledger.Use{{ID: "a", At: issuedAt.Add(time.Minute), Address: "192.0.2.9"}}})
	got, err := f.tokens().Get(in(t, "prod"), "a", &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := &identity.IssuedToken{
		ObjectMeta: metav1.ObjectMeta{
			Name: "a", Namespace: "prod", UID: "a", ResourceVersion: "11", CreationTimestamp: metav1.NewTime(issuedAt),
			Labels: map[string]string{
				"identity.lanyard.dev/service-account": "web", "identity.lanyard.dev/node": "n1", "identity.lanyard.dev/key": "key-1",
				"identity.lanyard.dev/bound-kind": "Pod", "identity.lanyard.dev/bound-name": "web-1",
			},
		},
		Spec: identity.IssuedTokenSpec{
			ServiceAccount: identity.ObjectIdentity{Name: "web", UID: "uid-of-web"}, Audiences: []string{"api", "vault"},
			BoundObject:         &identity.BoundObject{APIVersion: "v1", Kind: "Pod", Name: "web-1", UID: "uid-of-web-1"},
			Node:                &identity.ObjectIdentity{Name: "n1", UID: "uid-of-n1"},
			ExpirationTimestamp: metav1.NewTime(issuedAt.Add(time.Hour)), KeyID: "key-1",
			MintedBy: identity.Minter{Username: "alice", UID: "7", CredentialID: "X509SHA256=ab", Address: "192.0.2.7", UserAgent: "kubectl/v1.37"},
		},
		Status: identity.IssuedTokenStatus{
			Phase: identity.PhaseActive, LastUsed: &identity.Use{Time: metav1.NewTime(issuedAt.Add(time.Minute)), Address: "192.0.2.9"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLabelsThatCannotBe checks that a value that no label can have has no label.
func TestLabelsThatCannotBe(t *testing.T) {
	t.Parallel()
	f := newFixture()
	token := sample("a", "prod", strings.Repeat("x", 64))
	token.Key = "-key"
	f.issue(token)
	got, err := f.tokens().Get(in(t, "prod"), "a", nil)
	if err != nil || len(got.(*identity.IssuedToken).Labels) != 0 {
		t.Errorf("labels %v, %v", got, err)
	}
}

// TestPhase checks that a refused credential is Invalid, and that nothing is answered if this cannot be decided.
func TestPhase(t *testing.T) {
	t.Parallel()
	f := five()
	f.refuse("a", fmt.Errorf("%w: its pod is gone", issued.ErrRefused))
	got, err := f.tokens().Get(in(t, "prod"), "a", nil)
	if err != nil || got.(*identity.IssuedToken).Status.Phase != identity.PhaseInvalid {
		t.Errorf("%v, %v", got, err)
	}
	f.refuse("a", errBroken)
	if _, err := f.tokens().Get(in(t, "prod"), "a", nil); outage.Of(err) == nil {
		t.Errorf("get: %v, want an outage", err)
	}
	if _, err := f.tokens().List(in(t, "prod"), nil); outage.Of(err) == nil {
		t.Errorf("list: %v, want an outage", err)
	}
}

func TestGetOfMissing(t *testing.T) {
	t.Parallel()
	f := five()
	for namespace, name := range map[string]string{"prod": "x", "test": "a", "": "a"} {
		if got, err := f.tokens().Get(in(t, namespace), name, nil); !apierrors.IsNotFound(err) {
			t.Errorf("%s/%s: %v, %v", namespace, name, got, err)
		}
	}
}

// names returns the IDs of the tokens in a list.
func names(list runtime.Object) string {
	var all []string
	for _, item := range list.(*identity.IssuedTokenList).Items {
		all = append(all, item.Name)
	}
	return strings.Join(all, " ")
}

func selectors(t *testing.T, field, label string) *internalversion.ListOptions {
	t.Helper()
	byField, err := fields.ParseSelector(field)
	if err != nil {
		t.Fatal(err)
	}
	byLabel, err := labels.Parse(label)
	if err != nil {
		t.Fatal(err)
	}
	return &internalversion.ListOptions{FieldSelector: byField, LabelSelector: byLabel}
}

func TestSelectors(t *testing.T) {
	t.Parallel()
	f := five()
	f.refuse("b", issued.ErrRefused)
	for _, test := range []struct{ namespace, field, label, want string }{
		{"", "", "", "a b e c d"},
		{"prod", "", "", "a b e"},
		{"none", "", "", ""},
		{"", "metadata.name=c", "", "c"},
		{"prod", "metadata.name=c", "", ""},
		{"", "metadata.namespace=test", "", "c d"},
		{"", "spec.serviceAccount.name=robot", "", "b e"},
		{"test", "spec.serviceAccount.name=web", "", "c d"},
		{"", "spec.serviceAccount.name!=web", "", "b e"},
		{"", "spec.serviceAccount.name=web,spec.serviceAccount.name=robot", "", ""},
		{"", "spec.serviceAccount.uid=uid-of-web", "", "a c d"},
		{"", "spec.audiences=vault", "", "a b c d"},
		{"", "spec.audiences!=vault", "", "e"},
		{"", "spec.boundObject.kind=Pod,spec.boundObject.name=web-1", "", "a"},
		{"", "spec.boundObject.uid=uid-of-n2", "", "d"},
		{"", "spec.boundObject.name=", "", "b e c"},
		{"", "spec.boundObject.name!=", "", "a d"},
		{"", "spec.node.name=n1", "", "a"},
		{"", "spec.node.name=n2", "", "d"},
		{"", "spec.keyID=key-2", "", "e"},
		{"", "spec.mintedBy.username=alice", "", "a b c d"},
		{"", `spec.mintedBy.credentialID=JTI\=a`, "", "e"},
		{"", "spec.mintedBy.credentialID=a", "", "e"},
		{"", "spec.mintedBy.credentialID!=a", "", "a b c d"},
		{"", `spec.mintedBy.credentialID=X509SHA256\=ab`, "", "a b c d"},
		{"", "status.phase=Active", "", "a e c d"},
		{"prod", "status.phase=Invalid", "", "b"},
		{"prod", "status.phase!=Invalid,spec.keyID=key-1", "", "a"},
		{"", "", "identity.lanyard.dev/service-account=robot", "b e"},
		{"", "", "identity.lanyard.dev/node", "a d"},
		{"", "", "identity.lanyard.dev/service-account in (robot)", "b e"},
		{"", "", "identity.lanyard.dev/service-account!=robot", "a c d"},
		{"", "", "identity.lanyard.dev/service-account notin (robot)", "a c d"},
		{"", "", "identity.lanyard.dev/key=key-2,identity.lanyard.dev/service-account=web", ""},
		{"", "", "identity.lanyard.dev/bound-kind=Pod,identity.lanyard.dev/bound-name=web-1,identity.lanyard.dev/node=n1", "a"},
		{"", "", "other=x", ""},
		{"", "spec.keyID=key-1", "identity.lanyard.dev/service-account in (robot, other)", "b"},
	} {
		got, err := f.tokens().List(in(t, test.namespace), selectors(t, test.field, test.label))
		if err != nil || names(got) != test.want {
			t.Errorf("%q %q %q: %s, %v, want %s", test.namespace, test.field, test.label, names(got), err, test.want)
		}
	}
	if _, err := f.tokens().List(in(t, ""), selectors(t, "spec.nosuch=1", "")); !apierrors.IsBadRequest(err) {
		t.Errorf("an unknown field: %v", err)
	}
}

// TestPages lists with small pages while a token is issued. The pages have the resource version of the first one.
func TestPages(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		field string
		limit int64
		want  string
	}{{"", 2, "a b | e c | d"}, {"", 5, "a b e c d"}, {"", 9, "a b e c d"}, {"status.phase=Active", 2, "b e | d"}, {"spec.keyID=key-1", 3, "a b c | d"}} {
		f := five()
		f.refuse("a", issued.ErrRefused)
		f.refuse("c", issued.ErrRefused)
		options := selectors(t, test.field, "")
		options.Limit = test.limit
		var pages []string
		for {
			got, err := f.tokens().List(in(t, ""), options)
			if err != nil {
				t.Fatalf("%+v: %v", test, err)
			}
			pages = append(pages, names(got))
			list := got.(*identity.IssuedTokenList)
			if list.ResourceVersion != "13" {
				t.Errorf("resource version %s, want that of the first page", list.ResourceVersion)
			}
			if options.Continue = list.Continue; options.Continue == "" {
				break
			}
			f.issue(sample(fmt.Sprintf("new-%d", len(pages)), "a", "web"))
		}
		if got := strings.Join(pages, " | "); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestInvalidContinueTokens(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"x", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYSJ9"} {
		if _, err := five().tokens().List(in(t, ""), &internalversion.ListOptions{Continue: token}); !apierrors.IsBadRequest(err) {
			t.Errorf("%s: %v", token, err)
		}
	}
	options := &internalversion.ListOptions{Continue: "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0", ResourceVersion: "12"}
	if _, err := five().tokens().List(in(t, ""), options); !apierrors.IsBadRequest(err) {
		t.Errorf("continue with a resource version: %v", err)
	}
}

// TestResourceVersions checks how new the data of an answer is.
func TestResourceVersions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		version string
		match   metav1.ResourceVersionMatch
		settles int
		is      func(error) bool
	}{
		{"", "", 1, nil}, {"0", "", 0, nil}, {"12", "", 0, nil}, {"13", metav1.ResourceVersionMatchExact, 0, nil},
		{"12", metav1.ResourceVersionMatchExact, 0, apierrors.IsResourceExpired},
		{"14", metav1.ResourceVersionMatchNotOlderThan, 1, nil}, {"x", "", 0, apierrors.IsBadRequest},
	} {
		f := five()
		_, err := f.tokens().List(in(t, ""), &internalversion.ListOptions{ResourceVersion: test.version, ResourceVersionMatch: test.match})
		if test.is == nil && err != nil || test.is != nil && !test.is(err) {
			t.Errorf("%q %s: %v", test.version, test.match, err)
		}
		if f.settled != test.settles {
			t.Errorf("%q %s: waited %d times, want %d", test.version, test.match, f.settled, test.settles)
		}
	}
	f := five()
	f.settleErr = errBroken
	if _, err := f.tokens().List(in(t, ""), nil); outage.Of(err) == nil {
		t.Errorf("list: %v, want an outage", err)
	}
	if _, err := f.tokens().Get(in(t, "prod"), "a", nil); outage.Of(err) == nil {
		t.Errorf("get: %v, want an outage", err)
	}
}

// TestLaterPagesAreComplete checks that a replica that answers a later page waits for what others have written, because another
// replica may have answered the page before.
func TestLaterPagesAreComplete(t *testing.T) {
	t.Parallel()
	f := five()
	first, err := f.tokens().List(in(t, ""), &internalversion.ListOptions{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	second := &internalversion.ListOptions{Limit: 2, Continue: first.(*identity.IssuedTokenList).Continue}
	if _, err := f.tokens().List(in(t, ""), second); err != nil || f.settled != 2 {
		t.Errorf("second page: %v, waited %d times, want 2", err, f.settled)
	}
	f.settleErr = errBroken
	if _, err := f.tokens().List(in(t, ""), second); outage.Of(err) == nil {
		t.Errorf("second page of a replica that is behind: %v, want an outage", err)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	token := &identity.IssuedToken{
		ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: metav1.NewTime(issuedAt)},
		Spec: identity.IssuedTokenSpec{
			ServiceAccount: identity.ObjectIdentity{Name: "web"}, Audiences: []string{"api", "vault"}, KeyID: "k",
			ExpirationTimestamp: metav1.NewTime(issuedAt.Add(time.Hour)), MintedBy: identity.Minter{Username: "alice"},
		},
		Status: identity.IssuedTokenStatus{Phase: identity.PhaseActive},
	}
	now := issuedAt.Add(10 * time.Minute)
	want := []any{"a", "web", "Active", "<none>", "alice", "10m", "50m", "<never>", "<none>", "api,vault", "<none>", "k"}
	if diff := cmp.Diff(want, issued.TokenRow(token, now)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	token.Spec.BoundObject, token.Spec.Node = &identity.BoundObject{Kind: "Pod", Name: "p"}, &identity.ObjectIdentity{Name: "n"}
	token.Status.LastUsed = &identity.Use{Time: metav1.NewTime(issuedAt.Add(9 * time.Minute)), Address: "192.0.2.1"}
	want = []any{"a", "web", "Active", "Pod/p", "alice", "10m", "50m", "60s", "192.0.2.1", "api,vault", "n", "k"}
	if diff := cmp.Diff(want, issued.TokenRow(token, now)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(want) != len(issued.TokenColumns) || len(issued.CertificateRow(&identity.IssuedCertificate{}, now)) != len(issued.CertificateColumns) {
		t.Error("a row has another number of cells than columns")
	}
}
