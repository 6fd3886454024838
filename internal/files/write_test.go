package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	for _, content := range []string{"first", "second"} {
		if err := Write(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
	}
	checkOnly(t, dir, "key")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestWriteTakesOverALeftTemporaryFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".key.tmp"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "key"), []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	checkOnly(t, dir, "key")
}

func TestFailedWriteLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(target, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(target, []byte("x"), 0o600); err == nil {
		t.Fatal("replaced a directory that is not empty")
	}
	checkOnly(t, dir, "taken")
}

// TestWriteFromKeepsTheOldContent checks that content is not replaced by a part of other content.
func TestWriteFromKeepsTheOldContent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, broken := filepath.Join(dir, "key"), errors.New("broken")
	if err := Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := WriteFrom(path, 0o600, func(w io.Writer) error {
		if _, err := io.WriteString(w, "half"); err != nil {
			return err
		}
		return broken
	})
	if got, readErr := os.ReadFile(path); !errors.Is(err, broken) || readErr != nil || string(got) != "old" {
		t.Errorf("%v; the file has %q, %v", err, got, readErr)
	}
	checkOnly(t, dir, "key")
}

// TestPlantedLink checks that a link with the name of the temporary file is replaced, and that a link that appears later is not
// followed.
func TestPlantedLink(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, ".key.tmp")
	if err := os.Symlink(outside, link); err != nil {
		t.Skip(err)
	}
	if err := writeSynced(link, 0o600, func(io.Writer) error { return nil }); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a link that appeared: %v, want that it exists", err)
	}
	if err := Write(filepath.Join(dir, "key"), []byte("secret"), 0o600); err != nil {
		t.Error(err)
	}
	checkOnly(t, dir, "key")
	if data, err := os.ReadFile(outside); err != nil || string(data) != "untouched" {
		t.Errorf("the file outside is %q, %v", data, err)
	}
}

func checkOnly(t *testing.T, dir, want string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != want {
		t.Errorf("directory holds %v, want %s alone", entries, want)
	}
}
