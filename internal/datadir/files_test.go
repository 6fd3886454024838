package datadir

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	clocktesting "k8s.io/utils/clock/testing"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func newSigningKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// ensure creates the files that a start creates.
func ensure(d *Dir) error {
	certificates, err := d.EnsureCertificates("127.0.0.1", clocktesting.NewFakePassiveClock(now))
	if err != nil {
		return err
	}
	if err := d.EnsureSigningKey(d.SigningKey(), newSigningKey); err != nil {
		return err
	}
	if err := d.EnsureEncryptionConfig(); err != nil {
		return err
	}
	return d.EnsureKubeconfig(testURL, certificates)
}

// made returns the files that ensure creates, in that order.
func made(d *Dir) []string {
	return []string{
		d.CAKey(), d.CACert(), d.ServingKey(), d.ServingCert(), d.AdminKey(), d.AdminCert(),
		d.NodeClientKey(), d.NodeClientCert(), d.SigningKey(), d.EncryptionConfig(), d.Kubeconfig(),
	}
}

func contents(t *testing.T, d *Dir) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, path := range made(d) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = string(data)
	}
	return all
}

func TestSecondStartKeepsTheFiles(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	if err := ensure(d); err != nil {
		t.Fatal(err)
	}
	first := contents(t, d)
	if err := ensure(d); err != nil {
		t.Fatal(err)
	}
	for path, content := range contents(t, d) {
		if content != first[path] {
			t.Errorf("%s changed on the second start", path)
		}
		if !strings.HasSuffix(path, ".crt") {
			checkMode(t, path, 0o600)
		}
	}
	left, err := filepath.Glob(filepath.Join(d.Path(), ".[^g]*")) // all but .gitignore
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

// TestKilledFirstStart simulates a start that was killed after each of its files.
func TestKilledFirstStart(t *testing.T) {
	t.Parallel()
	for count := range 11 {
		d := open(t, t.TempDir())
		if err := ensure(d); err != nil {
			t.Fatal(err)
		}
		before := contents(t, d)
		files := made(d)
		for _, path := range files[count:] {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := ensure(d); err != nil {
			t.Errorf("after %d files: %v", count, err)
			continue
		}
		after := contents(t, d)
		for _, path := range files[:count] {
			derived := path == d.ServingKey() || path == d.AdminKey() || path == d.NodeClientKey()
			if before[path] != after[path] && !derived {
				t.Errorf("after %d files: %s was replaced", count, path)
			}
		}
	}
}

func TestCorruptFiles(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		path    func(*Dir) string
		content string
		want    string // empty if the file is created again
	}{
		"CA certificate":       {(*Dir).CACert, "junk", "is corrupt"},
		"CA key":               {(*Dir).CAKey, "junk", "is corrupt"},
		"serving certificate":  {(*Dir).ServingCert, "junk", ""},
		"admin key":            {(*Dir).AdminKey, "junk", ""},
		"kubeconfig":           {(*Dir).Kubeconfig, "\x00junk: [", ""},
		"empty kubeconfig":     {(*Dir).Kubeconfig, "", ""},
		"signing key":          {(*Dir).SigningKey, "junk", "is corrupt"},
		"empty signing key":    {(*Dir).SigningKey, "", "is corrupt"},
		"signing key, no key":  {(*Dir).SigningKey, "-----BEGIN PRIVATE KEY-----\nAQ==\n-----END PRIVATE KEY-----\n", "holds no private key"},
		"encryption":           {(*Dir).EncryptionConfig, "SECRETVALUE: [", "is not a valid EncryptionConfiguration"},
		"empty encryption":     {(*Dir).EncryptionConfig, "\n", "is empty"},
		"another kind":         {(*Dir).EncryptionConfig, "kind: Pod\napiVersion: v1\n", "is corrupt"},
		"short encryption key": {(*Dir).EncryptionConfig, shortKeyConfig, `the key "k" is not 32 bytes`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t, t.TempDir())
			if err := ensure(d); err != nil {
				t.Fatal(err)
			}
			path := test.path(d)
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			err := ensure(d)
			if (err != nil) != (test.want != "") {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if err == nil {
				return
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "SECRETVALUE") {
				t.Errorf("error %q", err)
			}
			if data, _ := os.ReadFile(path); string(data) != test.content {
				t.Error("the corrupt file was replaced")
			}
		})
	}
}

const shortKeyConfig = `kind: EncryptionConfiguration
apiVersion: apiserver.config.k8s.io/v1
resources:
- resources: [secrets]
  providers:
  - secretbox: {keys: [{name: k, secret: U0VDUkVUVkFMVUU=}]}
`

func TestLostEncryptionKeyIsReported(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	if err := os.MkdirAll(filepath.Join(d.EtcdDir(), "member", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	checkError(t, d.EnsureEncryptionConfig(), d.EncryptionConfig(), "is missing, but secrets")
}

func TestGeneratorFailureLeavesNoFile(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	broken := errors.New("no entropy")
	if err := d.EnsureSigningKey(d.SigningKey(), func() ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if present, _ := exists(d.SigningKey()); present {
		t.Error("a file was made")
	}
}

// TestEncryptionConfigEncrypts loads the file as the API server does.
func TestEncryptionConfigEncrypts(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	if err := d.EnsureEncryptionConfig(); err != nil {
		t.Fatal(err)
	}
	loaded, err := encryptionconfig.LoadEncryptionConfig(t.Context(), d.EncryptionConfig(), false, "test")
	if err != nil {
		t.Fatal(err)
	}
	transformer := loaded.Transformers[schema.GroupResource{Resource: "secrets"}]
	if transformer == nil {
		t.Fatal("secrets are not encrypted")
	}
	plain, where := []byte("k8s\x00plain value"), value.DefaultContext("secrets/ns/name")
	stored, err := transformer.TransformToStorage(context.Background(), plain, where)
	if err != nil || bytes.Contains(stored, plain) {
		t.Fatalf("stored %q, %v", stored, err)
	}
	for _, data := range [][]byte{stored, plain} {
		if read, _, err := transformer.TransformFromStorage(context.Background(), data, where); err != nil || !bytes.Equal(read, plain) {
			t.Errorf("read %q, %v", read, err)
		}
	}
}

func FuzzCheckEncryptionConfig(f *testing.F) {
	f.Add([]byte(shortKeyConfig))
	f.Fuzz(func(_ *testing.T, data []byte) { checkEncryptionConfig(data); checkSigningKey(data) })
}
