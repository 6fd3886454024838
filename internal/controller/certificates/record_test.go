package certificates

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	testclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/pki"
)

// TestCertificatesAreRecorded checks that no certificate is handed out before its record is durable, and what the record says.
func TestCertificatesAreRecorded(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	s := newSite(t, testclock.NewFakeClock(now), nil)
	r := approved(t, clientSigner, clientAuth, now)
	r.Spec.Username, r.Spec.UID = "joe", "7"
	r.Spec.Extra = map[string]certificatesv1.ExtraValue{"authentication.kubernetes.io/credential-id": {"JTI=1"}}
	r = s.put(t, r)
	signer, away := s.signer(newCA(t, now), noEvictions(), time.Hour, now), errors.New("etcd is away")
	signer.Record = func(context.Context, ledger.Certificate) error { return away }
	if err := signer.sign(t.Context(), r.Name); !errors.Is(err, away) || len(s.get(t, r.Name).Status.Certificate) > 0 {
		t.Errorf("without a durable record: %v, certificate %q", err, s.get(t, r.Name).Status.Certificate)
	}
	var got ledger.Certificate
	signer.Record = func(_ context.Context, c ledger.Certificate) error {
		got = c
		if len(s.get(t, r.Name).Status.Certificate) > 0 {
			t.Error("the certificate was handed out before its record")
		}
		return nil
	}
	if err := signer.sign(t.Context(), r.Name); err != nil {
		t.Fatal(err)
	}
	chain, err := pki.ParseChain(s.get(t, r.Name).Status.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(chain[0].Raw)
	want := ledger.Certificate{
		ID: hex.EncodeToString(digest[:]), User: "jane", Groups: []string{"dev"}, SignerName: clientSigner, Request: r.Name,
		Issued: now, Expires: chain[0].NotAfter, Minter: ledger.Minter{User: "joe", UID: "7", Credential: "JTI=1"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("recorded\n%+v, want\n%+v", got, want)
	}
}
