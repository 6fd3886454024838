//go:build linux

package node

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/util/certificate"

	"lanyard.dev/internal/hint"
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
	if err := checkNodeName(store, o); err != nil {
		t.Errorf("no certificate yet: %v", err)
	}
	if _, err := store.Update(pair.CertPEM, pair.KeyPEM); err != nil {
		t.Fatal(err)
	}
	if err := checkNodeName(store, o); err != nil {
		t.Errorf("the node's own: %v", err)
	}
	o.NodeName = "renamed"
	if err := checkNodeName(store, o); hint.Of(err) == "" {
		t.Errorf("another node's: %v", err)
	}
	if err := checkNodeName(broken{}, o); err != nil {
		t.Errorf("an unreadable certificate must be requested again, not refused: %v", err)
	}
}

// broken is a store without a readable certificate.
type broken struct{ certificate.Store }

func (broken) Current() (*tls.Certificate, error) { return nil, errors.New("not PEM") }

// TestCertificateFiles renews the files one after the other. While they do not fit together, the former certificate is used.
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
