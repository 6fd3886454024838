package apiserver

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lanyard.dev/internal/pki"
)

// TestPublicCAHoldsNoKey checks that no private key is published. The CA in ConfigMaps is read from a file that may also contain
// one.
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
			t.Errorf("%s: got %d bytes, want an error", filepath.Base(file), len(got))
		}
	}
}
