package metrics_test

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
	"io/fs"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/token"
)

// scrape returns the value of a series, and whether it exists.
func scrape(t *testing.T, m *metrics.Metrics, series string) (float64, bool) {
	t.Helper()
	response := httptest.NewRecorder()
	m.Handler().ServeHTTP(response, httptest.NewRequest("GET", "/metrics", nil))
	if response.Code != 200 {
		t.Fatalf("/metrics returns %d: %s", response.Code, response.Body)
	}
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(response.Body.String())
	if found == nil {
		return 0, false
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return value, true
}

func wantValue(t *testing.T, m *metrics.Metrics, series string, want float64) {
	t.Helper()
	if got, ok := scrape(t, m, series); !ok || got != want {
		t.Errorf("%s is %v (present: %v), want %v", series, got, ok, want)
	}
}

// fixedResult is a verifier that always returns the same error.
type fixedResult struct{ err error }

func (f fixedResult) Verify(context.Context, string, []string) (token.Identity, error) {
	return token.Identity{Name: "n"}, f.err
}

// TestVerificationsAreCountedByResult checks the counters of results, and that two authorities in a process have separate ones.
func TestVerificationsAreCountedByResult(t *testing.T) {
	t.Parallel()
	m, another := metrics.New(), metrics.New()
	for _, test := range []struct {
		result string
		err    error
	}{
		{"accepted", nil},
		{"expired", token.ErrExpired},
		{"account_gone", fmt.Errorf("verify: %w", token.ErrAccountGone)},
		{"node_gone", token.ErrNodeGone},
		{"unknown_key", token.ErrUnknownKey},
		{"stale", token.ErrAnchorsStale},
		{"unrecorded", token.ErrUnrecorded},
		{"revoked", token.ErrRevoked},
		{"foreign", token.ErrForeignIssuer},
		{"other", errors.New("something else")},
	} {
		series := fmt.Sprintf("lanyard_token_verifications_total{result=%q}", test.result)
		wantValue(t, m, series, 0)
		id, err := m.CountVerifications(fixedResult{test.err}).Verify(t.Context(), "x", nil)
		if id.Name != "n" || !errors.Is(err, test.err) {
			t.Errorf("%s: the result became %v, %v", test.result, id, err)
		}
		wantValue(t, m, series, 1)
		wantValue(t, another, series, 0)
	}
}

type issuer struct{ err error }

func (i issuer) Issue(context.Context, token.Request) (string, *token.Claims, error) {
	return "text", &token.Claims{}, i.err
}

// TestIssuedTokensAreCounted checks that only tokens that were issued are counted.
func TestIssuedTokensAreCounted(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	for _, err := range []error{nil, token.ErrTooLarge, nil} {
		if text, _, got := m.CountIssued(issuer{err}).Issue(t.Context(), token.Request{}); text != "text" || !errors.Is(got, err) {
			t.Errorf("the issuer's result became %q, %v", text, got)
		}
	}
	wantValue(t, m, "lanyard_tokens_issued_total", 2)
}

// between checks that a series exists and that its value is between two bounds. The value changes while the test runs.
func between(t *testing.T, m *metrics.Metrics, series string, low, high time.Duration) {
	t.Helper()
	if got, ok := scrape(t, m, series); !ok || got < low.Seconds() || got > high.Seconds() {
		t.Errorf("%s is %v (present: %v), want %v to %v", series, got, ok, low.Seconds(), high.Seconds())
	}
}

type keyFiles []metrics.KeyFile

func (f keyFiles) Files() []metrics.KeyFile { return f }

func (f keyFiles) Stale() time.Duration { return 90 * time.Second }

// TestKeysAge checks the ages of keys in several files, one of which does not exist.
func TestKeysAge(t *testing.T) {
	t.Parallel()
	first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
	for path, age := range map[string]time.Duration{first: time.Hour, second: 100 * time.Hour} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		written := time.Now().Add(-age)
		if err := os.Chtimes(path, written, written); err != nil {
			t.Fatal(err)
		}
	}
	m := metrics.New()
	m.WatchKeys(keyFiles{
		{Path: first, IDs: []string{"a"}}, {Path: second, IDs: []string{"a", "b"}},
		{Path: filepath.Join(t.TempDir(), "none"), IDs: []string{"c"}},
	})
	wantValue(t, m, "lanyard_service_account_key_files_stale_seconds", 90)
	between(t, m, `lanyard_service_account_key_age_seconds{kid="a"}`, time.Hour, 2*time.Hour)
	between(t, m, `lanyard_service_account_key_age_seconds{kid="b"}`, 100*time.Hour, 101*time.Hour)
	if value, ok := scrape(t, m, `lanyard_service_account_key_age_seconds{kid="c"}`); ok {
		t.Errorf("the key of a missing file has the age %v", value)
	}
}

func certificate(t *testing.T, age, remaining time.Duration) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now().Add(-age), NotAfter: time.Now().Add(remaining),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestCertificatesAge checks that a bundle has the age of the certificate that expires first, and that the remaining life of an
// expired certificate is negative.
func TestCertificatesAge(t *testing.T) {
	t.Parallel()
	ended, lasting := certificate(t, 3*time.Hour, -time.Hour), certificate(t, 5*time.Hour, 100*time.Hour)
	bundle := append(certificate(t, time.Hour, 1000*time.Hour), lasting...)
	m := metrics.New()
	m.WatchCertificates([]metrics.Certificate{
		{Name: "ended", Read: func() ([]byte, error) { return ended, nil }},
		{Name: "bundle", Read: func() ([]byte, error) { return bundle, nil }},
		{Name: "gone", Read: func() ([]byte, error) { return nil, fs.ErrNotExist }},
		{Name: "broken", Read: func() ([]byte, error) { return []byte("?"), nil }},
	})
	between(t, m, `lanyard_certificate_remaining_seconds{certificate="ended"}`, -2*time.Hour, -time.Hour+time.Minute)
	between(t, m, `lanyard_certificate_age_seconds{certificate="bundle"}`, 5*time.Hour, 6*time.Hour)
	between(t, m, `lanyard_certificate_remaining_seconds{certificate="bundle"}`, 99*time.Hour, 100*time.Hour)
	for _, absent := range []string{"gone", "broken"} {
		if value, ok := scrape(t, m, `lanyard_certificate_age_seconds{certificate="`+absent+`"}`); ok {
			t.Errorf("the certificate %s has the age %v", absent, value)
		}
	}
}

type proofAge time.Duration

func (p proofAge) ProofAge() time.Duration { return time.Duration(p) }

// TestFeedsAge checks the ages of the proofs of two feeds.
func TestFeedsAge(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.WatchFeeds(map[string]metrics.ProofAge{"pods": proofAge(time.Second), "nodes": proofAge(9 * time.Second)})
	wantValue(t, m, `lanyard_feed_proof_age_seconds{resource="pods"}`, 1)
	wantValue(t, m, `lanyard_feed_proof_age_seconds{resource="nodes"}`, 9)
}

func TestWatchEncryption(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.WatchEncryption(func() map[string]int { return map[string]int{"key1": 3, "none": 0} })
	wantValue(t, m, `lanyard_encrypted_secrets{key="key1"}`, 3)
	wantValue(t, m, `lanyard_encrypted_secrets{key="none"}`, 0)
}
