package etcd

import (
	"bytes"
	"path/filepath"
	"testing"
)

func TestDatabaseSizeOfForeignBytes(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"empty":  nil,
		"zeroes": make([]byte, 8192),
		"noise":  bytes.Repeat([]byte{0xed, 0x0c}, 8192),
	} {
		if got := databaseSize(bytes.NewReader(data)); got != 0 {
			t.Errorf("%s: %d, want 0", name, got)
		}
	}
}

func TestCheckDatabaseAcceptsAbsentFile(t *testing.T) {
	t.Parallel()
	if err := checkDatabase(filepath.Join(t.TempDir(), "db")); err != nil {
		t.Error(err)
	}
}

func FuzzDatabaseSize(f *testing.F) {
	f.Add(make([]byte, 4096))
	f.Fuzz(func(_ *testing.T, data []byte) { databaseSize(bytes.NewReader(data)) })
}
