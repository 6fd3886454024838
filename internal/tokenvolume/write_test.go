package tokenvolume

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func openRoot(t testing.TB) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

// text returns files with the content "CONTENT in NAME" and mode 0640, without owners.
func text(content string, names ...string) map[string]File {
	files := map[string]File{}
	for _, name := range names {
		files[name] = File{Data: []byte(content + " in " + name), Mode: 0o640, UID: -1, GID: -1}
	}
	return files
}

// checkHolds checks that a volume contains the files, one version, the links, and nothing else.
func checkHolds(t *testing.T, root *os.Root, files map[string]File) {
	t.Helper()
	for name, want := range files {
		data, err := root.ReadFile(name)
		if err != nil || string(data) != string(want.Data) {
			t.Errorf("%s holds %q, %v; want %q", name, data, err, want.Data)
			continue
		}
		if info, err := root.Stat(name); err != nil || info.Mode() != want.Mode {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, want.Mode)
		}
	}
	version, err := root.Readlink("..data")
	if err != nil {
		t.Fatal(err)
	}
	want := append(slices.Collect(maps.Keys(topLevelNames(files))), "..data", version)
	checkEntries(t, root, want...)
}

func checkEntries(t *testing.T, root *os.Root, want ...string) {
	t.Helper()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the volume holds %q, want %q", got, want)
	}
}

func TestWriteReplacesEverything(t *testing.T) {
	t.Parallel()
	root := openRoot(t)
	for _, files := range []map[string]File{
		text("first", "token", "ca.crt", "deep/down/file"),
		text("second", "token", "deep/file"),
		text("second", "token", "deep"),
		text("third", "./other//file"),
		{},
	} {
		if err := Write(root, files); err != nil {
			t.Fatal(err)
		}
		clean, _ := cleanFiles(files)
		checkHolds(t, root, clean)
	}
}

func TestWriteLeavesAloneWhatIsRight(t *testing.T) {
	t.Parallel()
	root := openRoot(t)
	files := text("content", "token", "deep/file")
	version := func() string {
		t.Helper()
		if err := Write(root, files); err != nil {
			t.Fatal(err)
		}
		target, err := root.Readlink("..data")
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	first := version()
	if again := version(); again != first {
		t.Errorf("the same content was written again, as %s", again)
	}
	for _, change := range []func(*File){
		func(f *File) { f.Mode = 0o600 },
		func(f *File) { f.Data = []byte("CONTENT in token") },
		func(f *File) { f.Data = []byte("longer than before, in token") },
	} {
		file := files["token"]
		change(&file)
		files["token"] = file
		again := version()
		if again == first {
			t.Error("a change was not written")
		}
		checkHolds(t, root, files)
		first = again
	}
}

func TestWriteSetsOwners(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	root := openRoot(t)
	files := map[string]File{"token": {Data: []byte("x"), Mode: 0o600, UID: 1234, GID: 2345}}
	if err := Write(root, files); err != nil {
		t.Fatal(err)
	}
	info, err := root.Stat("token")
	if err != nil || !sameAccess(info, files["token"]) {
		t.Errorf("owner or mode is wrong: %v, %v", info.Mode(), err)
	}
	files["token"] = File{Data: []byte("x"), Mode: 0o600, UID: 1234, GID: 2346}
	if err := Write(root, files); err != nil {
		t.Fatal(err)
	}
	if info, err = root.Stat("token"); err != nil || !sameAccess(info, files["token"]) {
		t.Errorf("a new group was not set: %v", err)
	}
}

// TestWriteReplacesForeignFiles puts files, links and directories into the volume that an attacker or another program might
// leave there.
func TestWriteReplacesForeignFiles(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	treasure := filepath.Join(outside, "treasure")
	if err := os.WriteFile(treasure, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(dir string) error{
		"..data leads outside":      func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "..data")) },
		"..data is a directory":     func(dir string) error { return os.MkdirAll(filepath.Join(dir, "..data", "x"), 0o755) },
		"..data points nowhere":     func(dir string) error { return os.Symlink("..1", filepath.Join(dir, "..data")) },
		"..data points to itself":   func(dir string) error { return os.Symlink("..data", filepath.Join(dir, "..data")) },
		"..data_tmp leads outside":  func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "..data_tmp")) },
		"a version leads outside":   func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "..2026_01")) },
		"token leads outside":       func(dir string) error { return os.Symlink(treasure, filepath.Join(dir, "token")) },
		"token is a file":           func(dir string) error { return os.WriteFile(filepath.Join(dir, "token"), []byte("x"), 0o644) },
		"token is a full directory": func(dir string) error { return os.MkdirAll(filepath.Join(dir, "token", "x"), 0o755) },
		"a stale link":              func(dir string) error { return os.Symlink("..data/old", filepath.Join(dir, "old")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := openRoot(t)
			if err := plant(root.Name()); err != nil {
				t.Fatal(err)
			}
			files := text("new", "token")
			if err := Write(root, files); err != nil {
				t.Fatal(err)
			}
			checkHolds(t, root, files)
			if data, err := os.ReadFile(treasure); err != nil || string(data) != "untouched" {
				t.Errorf("the outside was changed: %q, %v", data, err)
			}
		})
	}
}

// TestWriteDoesNotTrustAVersion replaces a file of the current version by a link.
func TestWriteDoesNotTrustAVersion(t *testing.T) {
	t.Parallel()
	root := openRoot(t)
	files := text("x", "token")
	if err := Write(root, files); err != nil {
		t.Fatal(err)
	}
	version, _ := root.Readlink("..data")
	for _, err := range []error{
		root.WriteFile("aside", files["token"].Data, 0o640), root.Remove(path.Join(version, "token")), root.Symlink("../aside", path.Join(version, "token")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(root, files); err != nil {
		t.Fatal(err)
	}
	if info, err := root.Lstat("..data/token"); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the link was taken for the file: %v, %v", info, err)
	}
}

var errCrash = errors.New("crash")

// crashingDir allows a number of changes and then fails, as if the process had been killed.
type crashingDir struct {
	*os.Root
	left int
}

func (m *crashingDir) step(change func() error) error {
	if m.left <= 0 {
		return errCrash
	}
	m.left--
	return change()
}

func (m *crashingDir) Mkdir(name string, perm fs.FileMode) error {
	return m.step(func() error { return m.Root.Mkdir(name, perm) })
}

func (m *crashingDir) MkdirAll(name string, perm fs.FileMode) error {
	return m.step(func() error { return m.Root.MkdirAll(name, perm) })
}

func (m *crashingDir) RemoveAll(name string) error {
	return m.step(func() error { return m.Root.RemoveAll(name) })
}

func (m *crashingDir) Rename(from, to string) error {
	return m.step(func() error { return m.Root.Rename(from, to) })
}

func (m *crashingDir) Symlink(to, name string) error {
	return m.step(func() error { return m.Root.Symlink(to, name) })
}

// OpenFile leaves an empty file behind if it is the last step.
func (m *crashingDir) OpenFile(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
	err = m.step(func() error {
		f, err = m.Root.OpenFile(name, flag, perm)
		return err
	})
	if err == nil && m.left == 0 {
		_ = f.Close()
	}
	return f, err
}

// TestWriteKilledAnywhere kills a Write after each of its steps. Readers then see all old or all new files, and the next
// Write leaves nothing but its own.
func TestWriteKilledAnywhere(t *testing.T) {
	t.Parallel()
	before, after, next := text("old", "token", "ca.crt", "gone"), text("new", "token", "ca.crt", "deep/file"), text("next", "token", "ca.crt")
	steps := 0
	for done := false; !done; steps++ {
		for _, following := range []map[string]File{before, after, next} {
			root := openRoot(t)
			if err := Write(root, before); err != nil {
				t.Fatal(err)
			}
			err := write(&crashingDir{Root: root, left: steps}, after)
			if done = err == nil; !done && !strings.Contains(err.Error(), "crash") && !errors.Is(err, os.ErrClosed) {
				t.Fatalf("after %d steps: %v", steps, err)
			}
			if got := readOne(t, root.Name(), "token", "ca.crt"); got != "old" && got != "new" {
				t.Errorf("killed after %d steps: readers see %q", steps, got)
			}
			if err := Write(root, following); err != nil {
				t.Fatalf("the Write after %d steps: %v", steps, err)
			}
			checkHolds(t, root, following)
		}
	}
	if steps < 12 {
		t.Errorf("a Write has only %d steps: the test kills nothing", steps)
	}
}

// readOne returns the words with which the files of a version begin: one word, if the files are of one Write.
func readOne(t *testing.T, dir string, names ...string) string {
	t.Helper()
	version, err := os.OpenRoot(filepath.Join(dir, "..data"))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = version.Close() }()
	words := map[string]bool{}
	for _, name := range names {
		data, err := version.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return ""
		}
		word, rest, _ := strings.Cut(string(data), " ")
		if rest != "in "+name {
			return fmt.Sprintf("%s is half: %q", name, data)
		}
		words[word] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(words)), " and ")
}

// TestWriteIsNeverSeenHalf reads while versions replace each other. If a version is removed while it is read, the reader reads
// again, as clients do.
func TestWriteIsNeverSeenHalf(t *testing.T) {
	t.Parallel()
	root := openRoot(t)
	names := []string{"token", "ca.crt", "deep/namespace"}
	if err := Write(root, text("v0", names...)); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var reads atomic.Int64
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for !stop.Load() {
				got := readOne(t, root.Name(), names...)
				if strings.Contains(got, " ") && !strings.Contains(got, "no such file") {
					t.Errorf("read %q", got)
				}
				reads.Add(1)
			}
		})
	}
	for i := 1; i < 300 || reads.Load() < 100; i++ {
		if err := Write(root, text(fmt.Sprintf("v%d", i), names...)); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	readers.Wait()
}

func TestCleanPath(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"token": "token", "a/b": "a/b", "./a//b/": "a/b", "a/..b": "a/..b", ".hidden": ".hidden", "...": "", "": "", ".": "", "..": "", "..data": "", "../x": "",
		"a/../b": "", "/etc/passwd": "", "a/..": "", "./..data": "", "a\x00b": "", "/": "",
		strings.Repeat("n", 255): strings.Repeat("n", 255), strings.Repeat("n", 256): "", strings.Repeat("n/", 2049): "",
	} {
		got, err := CleanPath(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("CleanPath(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	root := openRoot(t)
	for want, files := range map[string]map[string]File{
		"must not contain '..'":                  text("x", "a/../../b"),
		`conflicting duplicate paths: "a"`:       text("x", "a", "./a"),
		`duplicate paths: "a/b" is a file and a`: text("x", "a/b", "a/b/c/d"),
		"more than permissions":                  {"token": {Mode: 0o4755}},
	} {
		if err := Write(root, files); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	checkEntries(t, root)
}

// FuzzCleanPath checks that an accepted path stays inside the volume, has one canonical form, and can be written.
func FuzzCleanPath(f *testing.F) {
	for _, seed := range []string{"token", "a/../b", "..data", "a//b/.", "/x", "a/..b/c", "\\..\\x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		clean, err := CleanPath(name)
		if err != nil {
			return
		}
		if again, err := CleanPath(clean); err != nil || again != clean {
			t.Fatalf("%q became %q and then %q, %v", name, clean, again, err)
		}
		if !filepath.IsLocal(clean) || strings.HasPrefix(clean, "..") {
			t.Fatalf("%q became %q", name, clean)
		}
		root := openRoot(t)
		if err := Write(root, text("x", name)); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	})
}

// failingDir is a directory in which step number `at` fails. Lstat, Readlink and reads do not fail: Write treats their errors
// as missing files.
type failingDir struct {
	*os.Root
	at, steps int
}

var errStep = errors.New("the disk fails")

func (f *failingDir) step() error {
	if f.steps++; f.steps == f.at {
		return errStep
	}
	return nil
}

func (f *failingDir) Mkdir(name string, mode fs.FileMode) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Root.Mkdir(name, mode)
}

func (f *failingDir) MkdirAll(name string, mode fs.FileMode) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Root.MkdirAll(name, mode)
}

func (f *failingDir) OpenFile(name string, flag int, mode fs.FileMode) (*os.File, error) {
	if err := f.step(); err != nil {
		return nil, err
	}
	return f.Root.OpenFile(name, flag, mode)
}

func (f *failingDir) RemoveAll(name string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Root.RemoveAll(name)
}

func (f *failingDir) Rename(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Root.Rename(from, to)
}

func (f *failingDir) Symlink(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Root.Symlink(from, to)
}

// TestEveryFailureOfAStepIsReported has each step of a Write fail in turn, and then repeats the Write.
func TestEveryFailureOfAStepIsReported(t *testing.T) {
	t.Parallel()
	before, after := text("old", "token", "gone", "deep/er/file"), text("new", "token", "deep/er/file", "added")
	for at := 1; ; at++ {
		root := openRoot(t)
		if err := Write(root, before); err != nil {
			t.Fatal(err)
		}
		if err := root.Symlink("nowhere", "stray"); err != nil {
			t.Fatal(err)
		}
		disk := &failingDir{Root: root, at: at}
		err := write(disk, after)
		if disk.steps < at {
			if err != nil {
				t.Errorf("without a failure: %v", err)
			}
			if at < 12 {
				t.Errorf("a write takes %d steps, which is too few to be all", at)
			}
			return
		}
		if !errors.Is(err, errStep) {
			// The clean-up after a failure may fail as well, without an error: the next Write repeats it.
			t.Errorf("step %d failed, and Write returned %v", at, err)
		}
		token, err := root.ReadFile("token")
		if err != nil || string(token) != string(before["token"].Data) && string(token) != string(after["token"].Data) {
			t.Errorf("after a failure of step %d the token is %q, %v", at, token, err)
		}
		if err := Write(root, after); err != nil {
			t.Errorf("after a failure of step %d: %v", at, err)
		}
		checkHolds(t, root, after)
	}
}
