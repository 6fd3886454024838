package etcd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/schema"
)

func TestForeignBytes(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"zeroes": make([]byte, 8192),
		"noise":  bytes.Repeat([]byte{0xed, 0x0c}, 8192),
		"short":  {1},
	} {
		if _, err := inspect(bytes.NewReader(data), int64(len(data))); !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v, want errDamaged", name, err)
		}
	}
	if index, err := inspect(bytes.NewReader(nil), 0); index != 0 || err != nil {
		t.Errorf("an empty file: %d, %v; bbolt makes a database of it", index, err)
	}
}

func TestAbsentDatabasePasses(t *testing.T) {
	t.Parallel()
	if index, err := checkDatabase(filepath.Join(t.TempDir(), "db")); index != 0 || err != nil {
		t.Error(index, err)
	}
}

// filledDatabase returns the database file of a stopped member: keys of all sizes, some deleted, on several levels of pages.
// index is the number of the last entry in it.
func filledDatabase(t testing.TB) (data []byte, index uint64) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "etcd")
	s, err := Start(t.Context(), Config{Dir: dir, UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for i := range 300 {
		key := fmt.Sprintf("k%d", i%200)
		if i%7 == 0 {
			_, err = c.Delete(t.Context(), key)
		} else {
			_, err = c.Put(t.Context(), key, strings.Repeat("v", i*i))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	backend := s.member.Server.Backend()
	backend.ForceCommit()
	index, _ = schema.ReadConsistentIndex(backend.ReadTx())
	path := filepath.Join(dir, "member", "snap", "db")
	if data, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	return data, index
}

func TestStructureOfADatabase(t *testing.T) {
	t.Parallel()
	data, want := filledDatabase(t)
	got, err := inspect(bytes.NewReader(data), int64(len(data)))
	if err != nil || got != want || want < 300 {
		t.Fatalf("index %d, %v; want %d", got, err, want)
	}
	m, _ := readMetas(bytes.NewReader(data))
	used := data[:int64(m.pages)*m.pageSize]

	// The check must detect that a page in use was overwritten. Pages that continue another page, and free pages, have no
	// structure to check.
	detected := 0
	for id := int64(2); id < int64(m.pages); id++ {
		page := used[id*m.pageSize : (id+1)*m.pageSize]
		if binary.NativeEndian.Uint64(page) != uint64(id) {
			continue
		}
		saved := bytes.Clone(page)
		for i := range page {
			page[i] = byte(rand.Uint32())
		}
		if _, err := inspect(bytes.NewReader(used), int64(len(used))); errors.Is(err, errDamaged) {
			detected++
		} else if err != nil {
			t.Errorf("page %d: %v, want errDamaged", id, err)
		}
		copy(page, saved)
	}
	if detected < 10 {
		t.Errorf("detected %d damaged pages of %d", detected, m.pages)
	}
	if _, err := inspect(bytes.NewReader(used[:len(used)-1]), int64(len(used)-1)); !errors.Is(err, errDamaged) {
		t.Errorf("a file that was cut short: %v", err)
	}
}

// FuzzInspect looks for a file with which the check panics, does not end, or reads beyond the end.
func FuzzInspect(f *testing.F) {
	data, _ := filledDatabase(f)
	m, _ := readMetas(bytes.NewReader(data))
	small := data[:min(int64(len(data)), int64(m.pages)*m.pageSize, 1<<20)]
	for _, at := range []uint32{0, 16, 4096, 8192, 12290, 40000} {
		f.Add(at, []byte{0xff, 0x01, 0x00, 0xff, 0xff, 0xff, 0x7f, 0x02})
	}
	f.Fuzz(func(_ *testing.T, at uint32, patch []byte) {
		mutated := bytes.Clone(small)
		copy(mutated[int(at)%len(mutated):], patch)
		_, _ = inspect(bytes.NewReader(mutated), int64(m.pages)*m.pageSize)
	})
}
