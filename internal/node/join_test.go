package node

import (
	"crypto/tls"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/util/certificate"

	"lanyard.dev/internal/pki"
)

func TestCertificateOfAnotherNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := pki.EnsureAuthority(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"), "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.NewClient("system:node:edge", []string{"system:nodes"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o := &Options{RootDir: dir, NodeName: "edge"}
	store, err := certificateStore(o, "client")
	if err != nil {
		t.Fatal(err)
	}
	if err := isOf(store, o); err != nil {
		t.Errorf("no certificate yet: %v", err)
	}
	if _, err := store.Update(pair.CertPEM, pair.KeyPEM); err != nil {
		t.Fatal(err)
	}
	if err := isOf(store, o); err != nil {
		t.Errorf("the node's own: %v", err)
	}
	o.NodeName = "renamed"
	var hinted *Error
	if err := isOf(store, o); !errors.As(err, &hinted) || hinted.Hint() == "" {
		t.Errorf("another node's: %v", err)
	}
	if err := isOf(broken{}, o); err != nil {
		t.Errorf("one that cannot be read is asked for again, not refused: %v", err)
	}
}

// broken is a store without a readable certificate.
type broken struct{ certificate.Store }

func (broken) Current() (*tls.Certificate, error) { return nil, errors.New("not PEM") }
