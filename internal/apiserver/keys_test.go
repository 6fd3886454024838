package apiserver

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lanyard.dev/internal/pki"
)

// What is published in ConfigMaps comes from files that may hold a private key as well, as servers take them.
func TestPublicCAHoldsNoKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := pki.EnsureAuthority(filepath.Join(dir, "crt"), filepath.Join(dir, "key"), "ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	both := filepath.Join(dir, "both")
	if err := os.WriteFile(both, append(key, ca.CertPEM()...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := publicCA(both); err != nil || !bytes.Equal(got, ca.CertPEM()) {
		t.Errorf("%v; %d bytes, want the certificate's %d", err, len(got), len(ca.CertPEM()))
	}
	if got, err := publicCA(""); err != nil || got != nil {
		t.Errorf("no file: %q, %v", got, err)
	}
	for _, file := range []string{filepath.Join(dir, "key"), filepath.Join(dir, "none")} {
		if got, err := publicCA(file); err == nil {
			t.Errorf("%s: %d bytes are published", filepath.Base(file), len(got))
		}
	}
}
