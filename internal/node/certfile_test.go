package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lanyard.dev/internal/pki"
)

// TestCertificateFiles follows the files as they are renewed, and serves on while they do not fit together.
func TestCertificateFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "serving.crt"), filepath.Join(dir, "serving.key")
	if _, err := openCertificateFiles(cert, key); err == nil || !strings.Contains(err.Error(), cert) {
		t.Errorf("no files: %v", err)
	}
	ca, err := pki.EnsureAuthority(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"), "ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	first, second := renewed(t, ca), renewed(t, ca)
	put(t, cert, first.CertPEM)
	put(t, key, first.KeyPEM)
	files, err := openCertificateFiles(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		file string
		text []byte
		want *pki.Pair
	}{
		{cert, first.CertPEM, first}, {key, second.KeyPEM, first}, {cert, second.CertPEM, second}, {cert, nil, second},
	} {
		put(t, step.file, step.text)
		if got, err := files.current(); err != nil || !bytes.Equal(got.Certificate[0], step.want.Certificate().Raw) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func renewed(t *testing.T, ca *pki.Authority) *pki.Pair {
	t.Helper()
	pair, err := ca.NewServing(pki.Names{DNS: []string{"edge-7"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func put(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
