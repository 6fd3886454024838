package datadir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lanyard.dev/internal/signingkey"
)

// saved returns the essential files of a new data directory.
func saved(t *testing.T) []File {
	t.Helper()
	d := open(t, filepath.Join(t.TempDir(), "saved"))
	if err := ensure(d); err != nil {
		t.Fatal(err)
	}
	found, err := Essentials(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// restoreFiles begins to restore the files and a store that looks like one.
func restoreFiles(t *testing.T, path string, all []File) *Restoration {
	t.Helper()
	r, err := Restore(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if err := r.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(r.EtcdDir(), "member", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.EtcdDir(), "member", "wal", "0.wal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEssentialsOfAnIncompleteDirectory(t *testing.T) {
	t.Parallel()
	d := open(t, filepath.Join(t.TempDir(), "d"))
	if err := ensure(d); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.NodesCAKey()); err != nil {
		t.Fatal(err)
	}
	_, err := Essentials(d.Path())
	checkError(t, err, d.NodesCAKey(), "is missing")
}

func TestRestore(t *testing.T) {
	t.Parallel()
	all, path := saved(t), filepath.Join(t.TempDir(), "d")
	r := restoreFiles(t, path, all)
	if err := os.WriteFile(r.Temporary(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path)
	checkError(t, err, path, "a restore has begun there")
	_, err = Restore(path)
	checkError(t, err, path, "the files of another restore")
	if err := r.Finish(); err != nil {
		t.Fatal(err)
	}
	checkMode(t, path, 0o700)
	d := open(t, path)
	if err := errors.Join(d.CheckData(), ensure(d)); err != nil {
		t.Error(err)
	}
	for _, f := range all {
		if got, err := os.ReadFile(filepath.Join(path, f.Name)); err != nil || string(got) != string(f.Data) {
			t.Errorf("%s is %q, %v", f.Name, got, err)
		}
		checkMode(t, filepath.Join(path, f.Name), 0o600)
	}
	if _, err := os.Lstat(filepath.Join(path, restoring)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", restoring, err)
	}
	if err := os.RemoveAll(d.EtcdDir()); err != nil {
		t.Fatal(err)
	}
	checkError(t, d.CheckData(), d.EtcdDir(), "is missing or empty")
}

func TestRestoreIntoDirectories(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	if err := os.Mkdir(filepath.Join(empty, lostAndFound), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := restoreFiles(t, empty, saved(t)).Finish(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"ca.crt": "is not empty: it holds ca.crt", lockName: "is a data directory already"} {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Restore(path)
		checkError(t, err, path, want)
		if found, _ := os.ReadDir(path); len(found) != 1 {
			t.Errorf("%v in a directory that was refused", found)
		}
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Restore(file)
	checkError(t, err, file, "is not a directory")
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	all, parent := saved(t), t.TempDir()
	r := restoreFiles(t, filepath.Join(parent, "d"), all)
	if err := r.Discard(); err != nil {
		t.Fatal(err)
	}
	if found, _ := os.ReadDir(parent); len(found) > 0 {
		t.Errorf("%v are left", found)
	}
	// Something appears under the name of a file while the files get their names.
	kept := filepath.Join(parent, "kept")
	if err := os.Mkdir(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	r = restoreFiles(t, kept, all)
	if err := os.MkdirAll(filepath.Join(kept, encryptionName, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.Finish(); err == nil {
		t.Fatal("finished")
	}
	if err := r.Discard(); err != nil {
		t.Fatal(err)
	}
	if found, _ := os.ReadDir(kept); len(found) != 1 || found[0].Name() != encryptionName {
		t.Errorf("%v are left", found)
	}
}

// TestHalfFinishedRestore stops before the lock file has its name: no authority starts then.
func TestHalfFinishedRestore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "d")
	r := restoreFiles(t, path, saved(t))
	if err := os.Rename(r.join(CACertName), filepath.Join(path, CACertName)); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path)
	checkError(t, err, path, "a restore has begun there")
}

func TestRestoredFilesAreChecked(t *testing.T) {
	t.Parallel()
	r, err := Restore(filepath.Join(t.TempDir(), "d"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []File{{signingKeyName, []byte("x")}, {encryptionName, []byte("kind: Other")}, {"../x", nil}, {lockName, nil}, {"admin.kubeconfig", nil}} {
		if err := r.Write(f); err == nil {
			t.Errorf("%s was written", f.Name)
		}
	}
	if err := r.Finish(); err == nil || !strings.Contains(err.Error(), "the backup has no ca.crt") {
		t.Errorf("finished without files: %v", err)
	}
}

func TestReplaceSigningKeys(t *testing.T) {
	t.Parallel()
	all := saved(t)
	path, further := filepath.Join(t.TempDir(), "d"), furtherKeyName(signingkey.RS256)
	key, err := newSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	r := restoreFiles(t, path, append(all, File{further, key}))
	if err := errors.Join(r.ReplaceSigningKeys(), r.Finish()); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(path, signingKeyName))
	if err != nil || checkSigningKey(after) != "" {
		t.Fatalf("%s, %v", checkSigningKey(after), err)
	}
	for _, f := range all {
		if f.Name == signingKeyName && string(f.Data) == string(after) {
			t.Error("the key is the same")
		}
	}
	if _, err := os.Lstat(filepath.Join(path, further)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key for another algorithm is left: %v", err)
	}
}

// TestFurtherKeys checks that keys for other algorithms are kept if there are any.
func TestFurtherKeys(t *testing.T) {
	t.Parallel()
	d := open(t, filepath.Join(t.TempDir(), "d"))
	further := d.SigningKeyFor(signingkey.RS256)
	if err := errors.Join(ensure(d), d.EnsureSigningKey(further, newSigningKey)); err != nil {
		t.Fatal(err)
	}
	all, err := Essentials(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "d")
	if err := restoreFiles(t, path, all).Finish(); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(further)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(path, filepath.Base(further))); err != nil || string(got) != string(want) {
		t.Errorf("the key for another algorithm is %q, %v", got, err)
	}
}
