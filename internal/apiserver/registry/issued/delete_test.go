package issued_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/apiserver/registry/issued"
	"lanyard.dev/internal/ledger"
)

var errForbidden = errors.New("admission refuses")

func refuse(context.Context, runtime.Object) error { return errForbidden }

func TestDelete(t *testing.T) {
	t.Parallel()
	f := five()
	answer, now, err := f.tokens().Delete(in(t, "prod"), "a", nil, &metav1.DeleteOptions{})
	want := &metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{
		Name: "a", Group: "identity.lanyard.dev", Kind: "issuedtokens", UID: "a",
	}}
	if diff := cmp.Diff(runtime.Object(want), answer); diff != "" || !now || err != nil {
		t.Errorf("%v, %v (-want +got):\n%s", now, err, diff)
	}
	if diff := cmp.Diff([][]ledger.Revocation{{{ID: "a", Expires: issuedAt.Add(time.Hour)}}}, f.revoked); diff != "" {
		t.Errorf("revoked (-want +got):\n%s", diff)
	}
	if _, _, err := f.tokens().Delete(in(t, "prod"), "a", nil, nil); !apierrors.IsNotFound(err) {
		t.Errorf("a second time: %v", err)
	}
}

// TestDeletionsThatDoNothing checks what keeps a deletion from revoking.
func TestDeletionsThatDoNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, namespace string
		options         *metav1.DeleteOptions
		validate        func(context.Context, runtime.Object) error
		is              func(error) bool
	}{
		{"dry run", "prod", &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}, nil, func(err error) bool { return err == nil }},
		{"another UID", "prod", metav1.NewPreconditionDeleteOptions("x"), nil, apierrors.IsConflict},
		{"another version", "prod", metav1.NewRVDeletionPrecondition("12"), nil, apierrors.IsConflict},
		{"admission", "prod", nil, refuse, func(err error) bool { return errors.Is(err, errForbidden) }},
		{"another namespace", "test", nil, nil, apierrors.IsNotFound},
	} {
		f := five()
		_, _, err := f.tokens().Delete(in(t, test.namespace), "a", test.validate, test.options)
		if !test.is(err) {
			t.Errorf("%s: %v", test.name, err)
		}
		if len(f.revoked) != 0 {
			t.Errorf("%s: revoked %v", test.name, f.revoked)
		}
	}
	f := five()
	options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To[types.UID]("a"), ResourceVersion: ptr.To("11")}}
	if _, _, err := f.tokens().Delete(in(t, "prod"), "a", nil, options); err != nil || len(f.revoked) != 1 {
		t.Errorf("preconditions that hold: %v, revoked %v", err, f.revoked)
	}
}

// TestRevocationThatFails checks that a deletion does not succeed unless the revocation is durable.
func TestRevocationThatFails(t *testing.T) {
	t.Parallel()
	f := five()
	f.revokeErr = errBroken
	if _, _, err := f.tokens().Delete(in(t, "prod"), "a", nil, nil); outage.Of(err) == nil {
		t.Errorf("delete: %v, want an outage", err)
	}
	if _, err := f.tokens().DeleteCollection(in(t, ""), nil, nil, nil); outage.Of(err) == nil {
		t.Errorf("delete collection: %v, want an outage", err)
	}
}

// TestDeleteCollection checks that the selected tokens are revoked at once and returned.
func TestDeleteCollection(t *testing.T) {
	t.Parallel()
	f := five()
	f.refuse("b", issued.ErrRefused)
	dry := &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	options := selectors(t, "status.phase=Active", "identity.lanyard.dev/service-account in (web,robot)")
	got, err := f.tokens().DeleteCollection(in(t, "prod"), nil, dry, options)
	if err != nil || names(got) != "a e" || len(f.revoked) != 0 {
		t.Errorf("dry run: %v, %v, revoked %v", got, err, f.revoked)
	}
	if _, err := f.tokens().DeleteCollection(in(t, "prod"), refuse, nil, options); !errors.Is(err, errForbidden) || len(f.revoked) != 0 {
		t.Errorf("admission: %v, revoked %v", err, f.revoked)
	}
	got, err = f.tokens().DeleteCollection(in(t, "prod"), nil, nil, options)
	if err != nil || names(got) != "a e" {
		t.Errorf("%v, %v", got, err)
	}
	if len(f.revoked) != 1 || len(f.revoked[0]) != 2 {
		t.Errorf("revoked %v, want two tokens in one write", f.revoked)
	}
	if got, err := f.tokens().DeleteCollection(in(t, "none"), nil, nil, nil); err != nil || names(got) != "" || len(f.revoked) != 1 {
		t.Errorf("an empty collection: %v, %v", got, err)
	}
}
