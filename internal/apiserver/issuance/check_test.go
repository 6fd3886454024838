package issuance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	testclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/token"
)

// staleFeed is a Feed whose last proof is an hour old.
type staleFeed struct{ Feed }

var errStale = errors.New("stale")

func (staleFeed) Fresh() error            { return errStale }
func (staleFeed) ProofAge() time.Duration { return time.Hour }

// TestStaleMemory checks that a memory that may lack the latest batches accepts no token, and of certificates those that cannot have
// been revoked.
func TestStaleMemory(t *testing.T) {
	t.Parallel()
	now := time.Now()
	clock := testclock.NewFakeClock(now)
	j := New(Config{Feed: staleFeed{}, Memory: ledger.NewMemory(clock), Clock: clock})
	j.Memory.Apply(&ledger.Batch{
		Tokens:       []ledger.Token{{ID: "6f1c7a50-8c1c-4d35-9a0f-7a9fcd1d9b11", Expires: now.Add(time.Hour)}},
		Certificates: []ledger.Certificate{{ID: "recorded", Expires: now.Add(time.Hour)}},
		Revocations:  []ledger.Revocation{{ID: "revoked", Expires: now.Add(time.Hour)}},
	}, 1)
	if err := j.Check(context.Background(), "6f1c7a50-8c1c-4d35-9a0f-7a9fcd1d9b11", &[sha256.Size]byte{}); !errors.Is(err, token.ErrLedgerStale) {
		t.Errorf("a token: %v", err)
	}
	long, lately := now.Add(-24*time.Hour), now.Add(-30*time.Minute)
	for _, tt := range []struct {
		id        string
		notBefore time.Time
		want      error
	}{
		{"recorded", long, errStale}, {"revoked", long, ErrRevoked}, {"of another CA", long, nil},
		{"signed since", lately, errStale}, {"signed since, backdated", now.Add(-time.Hour - time.Minute), errStale},
	} {
		if err := j.CheckCertificate(tt.id, &x509.Certificate{NotBefore: tt.notBefore}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.id, err, tt.want)
		}
	}
}

// freshFeed is a Feed that has everything.
type freshFeed struct{ Feed }

func (freshFeed) Fresh() error { return nil }

// TestCopiesOfCertificates checks that no other encoding of a certificate is accepted in place of it. Package crypto/x509 accepts
// each of them, and nobody needs a key to make them.
func TestCopiesOfCertificates(t *testing.T) {
	t.Parallel()
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()} {
		ca, key, issued := newCertificate(t, curve)
		type parts struct {
			Signed, Algorithm asn1.RawValue
			Signature         asn1.BitString
		}
		encode := func(value any) []byte {
			data, err := asn1.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		var original parts
		var signature struct{ R, S *big.Int }
		_, err := asn1.Unmarshal(issued.Raw, &original)
		_, err2 := asn1.Unmarshal(issued.Signature, &signature)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		other, shifted := original, original
		signature.S.Sub(key.Params().N, signature.S)
		bytes := encode(signature)
		other.Signature = asn1.BitString{Bytes: bytes, BitLength: 8 * len(bytes)}
		bits := new(big.Int).Lsh(new(big.Int).SetBytes(issued.Signature), 1).Bytes()
		shifted.Signature = asn1.BitString{Bytes: bits, BitLength: 8*len(bits) - 1}
		for kind, der := range map[string][]byte{
			"the other signature": encode(other), "an unused bit in the signature": encode(shifted),
			"more after the signature": encode([]asn1.RawValue{
				original.Signed, original.Algorithm, {FullBytes: encode(original.Signature)}, {FullBytes: encode(1)},
			}),
			"bytes after the signature": encode(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(
				original.Signed.FullBytes, original.Algorithm.FullBytes, encode(original.Signature), []byte{0xff},
			)}),
		} {
			copied, err := x509.ParseCertificate(der)
			if err != nil || copied.CheckSignatureFrom(ca) != nil {
				t.Logf("%s, %s: crypto/x509 does not accept it any more: %v", name, kind, err)
				continue
			}
			id := hexDigest(issued.Raw)
			for state, batch := range map[string]*ledger.Batch{
				"recorded": {Certificates: []ledger.Certificate{{ID: id, Expires: issued.NotAfter}}},
				"revoked":  {Revocations: []ledger.Revocation{{ID: id, Expires: issued.NotAfter}}},
			} {
				clock := testclock.NewFakeClock(time.Now())
				j := New(Config{Feed: freshFeed{}, Memory: ledger.NewMemory(clock), Clock: clock})
				if err := j.CheckCertificate(hexDigest(der), copied); err != nil {
					t.Errorf("%s, %s, of another CA: %v", name, kind, err)
				}
				j.Memory.Apply(batch, 1)
				if err := j.CheckCertificate(hexDigest(der), copied); !errors.Is(err, ErrRevoked) {
					t.Errorf("%s, %s, %s: %v", name, kind, state, err)
				}
				if err := j.CheckCertificate(id, issued); (err == nil) != (state == "recorded") {
					t.Errorf("%s, the certificate itself, %s: %v", name, state, err)
				}
			}
		}
	}
}

func hexDigest(der []byte) string {
	digest := sha256.Sum256(der)
	return hex.EncodeToString(digest[:])
}

// newCertificate returns a CA with a key on a curve, and a certificate that it signed.
func newCertificate(t *testing.T, curve elliptic.Curve) (ca *x509.Certificate, key *ecdsa.PrivateKey, issued *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	sign := func(parent *x509.Certificate) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	ca = sign(template)
	template.Subject.CommonName, template.IsCA, template.KeyUsage = "jane", false, x509.KeyUsageDigitalSignature
	return ca, key, sign(ca)
}
