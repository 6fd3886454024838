package pki_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/pki"
)

func FuzzParseRequest(f *testing.F) {
	_, request, err := pki.NewRequest("jane", []string{"dev"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Add(request[:len(request)-40])
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := pki.ParseRequest(data)
		if err != nil {
			return
		}
		if len(data) > pki.MaxRequest || got.CheckSignature() != nil {
			t.Errorf("accepted %d bytes with signature %v", len(data), got.CheckSignature())
		}
	})
}

func FuzzParseChain(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if chain, err := pki.ParseChain(data); (len(chain) == 0) != (err != nil) {
			t.Errorf("%d certificates, and %v", len(chain), err)
		}
	})
}

func TestSign(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	dir := t.TempDir()
	certFile, keyFile := dir+"/ca.crt", dir+"/ca.key"
	ca, err := pki.EnsureAuthority(certFile, keyFile, "test-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := pki.LoadSigner(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	_, data, err := pki.NewRequest("jane", []string{"ops", "dev"})
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.ParseRequest(data)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		life  time.Duration
		until time.Time
	}{
		"ten minutes":    {10 * time.Minute, now.Add(10 * time.Minute)},
		"eight hours":    {8 * time.Hour, now.Add(8 * time.Hour)},
		"a day":          {24 * time.Hour, now.Add(24 * time.Hour)},
		"longer than CA": {20 * 365 * 24 * time.Hour, ca.Certificate().NotAfter},
	} {
		terms := pki.Terms{Life: c.life, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		out, err := signer.Sign(request, terms, now)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := pki.ParseChain(out)
		if err != nil {
			t.Fatal(err)
		}
		cert := chain[0]
		if !cert.NotAfter.Equal(c.until) || !cert.NotBefore.Equal(now.Add(-5*time.Minute)) {
			t.Errorf("%s: valid from %v to %v, want to %v", name, cert.NotBefore, cert.NotAfter, c.until)
		}
		if !bytes.Equal(cert.RawSubject, request.RawSubject) || cert.IsCA || cert.CheckSignatureFrom(ca.Certificate()) != nil {
			t.Errorf("%s: subject %v, CA %v, %v", name, cert.Subject, cert.IsCA, cert.CheckSignatureFrom(ca.Certificate()))
		}
	}
	if _, err := signer.Sign(request, pki.Terms{Life: time.Hour}, ca.Certificate().NotAfter); err == nil {
		t.Error("an expired CA signed")
	}
}

func TestLoadSignerRefuses(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	ca, err := pki.EnsureAuthority(dir+"/ca.crt", dir+"/ca.key", "ca", now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.EnsureClient(dir+"/leaf.crt", dir+"/leaf.key", "jane", nil, now); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string][2]string{
		"no file": {"none.crt", "ca.key"}, "no key": {"ca.crt", "none.key"}, "another key": {"ca.crt", "leaf.key"}, "no CA": {"leaf.crt", "leaf.key"},
	} {
		if _, err := pki.LoadSigner(dir+"/"+files[0], dir+"/"+files[1]); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}

// TestReadPublicLeavesOutKeys reads a certificate and its private key in one file, as some servers use them.
func TestReadPublicLeavesOutKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile, both := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"), filepath.Join(dir, "both")
	ca, err := pki.EnsureAuthority(certFile, keyFile, "ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	text := slices.Concat([]byte("a comment\n"), key, ca.CertPEM(), key, ca.CertPEM())
	if err := os.WriteFile(both, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := pki.ReadPublic(both); err != nil || !bytes.Equal(got, slices.Concat(ca.CertPEM(), ca.CertPEM())) {
		t.Errorf("%v; %d bytes, want both certificates", err, len(got))
	}
	if roots, err := pki.ReadRoots(both); err != nil || roots.Equal(x509.NewCertPool()) {
		t.Errorf("roots: %v, %v", roots, err)
	}
	if pair, err := pki.ReadKeyPair(both, both); err != nil || !bytes.Equal(pair.Certificate[0], ca.Certificate().Raw) {
		t.Errorf("key pair: %v", err)
	}
	for _, file := range []string{keyFile, filepath.Join(dir, "absent")} {
		if got, err := pki.ReadPublic(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: public: %d bytes, %v", file, len(got), err)
		}
		if _, err := pki.ReadRoots(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: roots: %v", file, err)
		}
	}
}

// TestReadersAreBounded checks that every reader refuses a file that is far larger than any certificate.
func TestReadersAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := pki.EnsureAuthority(dir+"/ca.crt", dir+"/ca.key", "ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	huge := filepath.Join(dir, "huge")
	if err := os.WriteFile(huge, append(ca.CertPEM(), make([]byte, files.MaxPEM)...), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func() error{
		"public":      func() error { _, err := pki.ReadPublic(huge); return err },
		"roots":       func() error { _, err := pki.ReadRoots(huge); return err },
		"certificate": func() error { _, err := pki.ReadKeyPair(huge, dir+"/ca.key"); return err },
		"key":         func() error { _, err := pki.ReadKeyPair(dir+"/ca.crt", huge); return err },
		"signer":      func() error { _, err := pki.LoadSigner(dir+"/ca.crt", huge); return err },
	} {
		if err := read(); !errors.Is(err, files.ErrTooLarge) || !strings.Contains(err.Error(), huge) {
			t.Errorf("%s: %v, want that %s is too large", name, err, huge)
		}
	}
}
