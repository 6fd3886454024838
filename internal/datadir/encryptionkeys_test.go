package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func keyNames(t *testing.T, d *Dir) []string {
	t.Helper()
	keys, err := d.EncryptionKeys()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, key := range keys {
		names = append(names, key.Name)
	}
	return names
}

func TestEncryptionKeys(t *testing.T) {
	t.Parallel()
	d := open(t, filepath.Join(t.TempDir(), "d"))
	if err := d.EnsureEncryptionConfig(); err != nil {
		t.Fatal(err)
	}
	keys, err := d.EncryptionKeys()
	if err != nil || len(keys) != 1 || keys[0].Name != "key1" || time.Since(keys[0].Created) > time.Minute {
		t.Fatalf("%+v, %v", keys, err)
	}
	if err := d.AddEncryptionKey(now); err != nil {
		t.Fatal(err)
	}
	keys, err = d.EncryptionKeys()
	if err != nil || len(keys) != 2 || keys[0].Name != "key-20300102T030405Z" || !keys[0].Created.Equal(now) || keys[1].Name != "key1" {
		t.Fatalf("%+v, %v", keys, err)
	}
	checkMode(t, d.EncryptionConfig(), 0o600)
	if err := d.EnsureEncryptionConfig(); err != nil {
		t.Error(err)
	}
	if err := d.DropEncryptionKeys(); err != nil {
		t.Fatal(err)
	}
	if got := keyNames(t, d); len(got) != 1 || got[0] != keys[0].Name {
		t.Errorf("keys %q", got)
	}
}

// TestOwnEncryption checks that a configuration of an administrator is not changed.
func TestOwnEncryption(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
	for name, text := range map[string]string{
		"another provider first":  head + "- resources: [secrets]\n  providers:\n  - identity: {}\n",
		"another provider beside": head + "- resources: [secrets]\n  providers:\n  - secretbox: {keys: [{name: a, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=}]}\n  - kms: {name: x, endpoint: 'unix:///x'}\n",
		"more resources":          head + "- resources: [secrets]\n  providers:\n  - identity: {}\n- resources: [configmaps]\n  providers:\n  - identity: {}\n",
		"no keys":                 head + "- resources: [secrets]\n  providers:\n  - secretbox: {keys: []}\n",
		"no providers":            head + "- resources: [secrets]\n",
	} {
		d := open(t, filepath.Join(t.TempDir(), "d"))
		if err := os.WriteFile(d.EncryptionConfig(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for verb, err := range map[string]error{"add": d.AddEncryptionKey(now), "drop": d.DropEncryptionKeys()} {
			if !errors.Is(err, ErrOwnEncryption) {
				t.Errorf("%s: %s: %v", name, verb, err)
			}
		}
		if got, err := os.ReadFile(d.EncryptionConfig()); err != nil || string(got) != text {
			t.Errorf("%s: it was changed: %q, %v", name, got, err)
		}
	}
}
