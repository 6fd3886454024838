package datadir

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"lanyard.dev/internal/hint"
)

// The test binary runs itself as an instance that a test kills.
const (
	childDirEnv = "LANYARD_DATADIR_TEST_CHILD_DIR"
	// idleEnv makes it wait until its standard input ends.
	idleEnv = "LANYARD_DATADIR_TEST_IDLE"
)

const testURL = "https://127.0.0.1:6443"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirEnv); dir != "" {
		os.Exit(runChild(dir))
	}
	if os.Getenv(idleEnv) != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// runChild opens the directory and keeps it until the standard input ends or the process is killed.
func runChild(dir string) int {
	d, err := Open(dir)
	if err == nil {
		err = d.Announce(testURL)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func startChild(t *testing.T, dir, runtimeDir string) *exec.Cmd {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childDirEnv+"="+dir, runtimeDirEnv+"="+runtimeDir)
	if _, err := child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	return child
}

func kill(t *testing.T, child *exec.Cmd) {
	t.Helper()
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
}

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func checkError(t *testing.T, err error, path, want string) {
	t.Helper()
	var failure *hint.Error
	if !errors.As(err, &failure) {
		t.Fatalf("got %v, want a *hint.Error", err)
	}
	if failure.Hint == "" || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has no hint or several lines", err)
	}
	if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %q, want %q about %s", err, want, path)
	}
}

func TestOpenCreatesPrivateDirectory(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b")
	d := open(t, path)
	if d.Path() != path {
		t.Errorf("path %s, want %s", d.Path(), path)
	}
	checkMode(t, path, 0o700)
	checkMode(t, filepath.Join(path, lockName), 0o600)
	if ignored, err := os.ReadFile(filepath.Join(path, ".gitignore")); err != nil || string(ignored) != "*\n" {
		t.Errorf("the .gitignore is %q, %v", ignored, err)
	}
}

func TestOpenClosesAnEmptyDirectoryToOthers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	checkMode(t, path, 0o700)
}

func checkMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s has mode %o, want %o", path, got, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	file, full := filepath.Join(root, "file"), filepath.Join(root, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(full, "letter.txt")} {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct{ path, want string }{
		"a file":        {file, "is not a directory"},
		"below a file":  {filepath.Join(file, "d"), "cannot be created: not a directory"},
		"other content": {full, "is not a data directory: it holds letter.txt"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(test.path)
			checkError(t, err, test.path, test.want)
		})
	}
	t.Cleanup(func() { checkMode(t, full, 0o755) })
}

func TestOpenRefusesAnotherUsersDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	path := t.TempDir()
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path)
	checkError(t, err, path, "belongs to another user (uid 12345)")
}

func TestSecondOpenNamesTheFirst(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	child := startChild(t, path, filepath.Join(t.TempDir(), "run"))
	_, err := Open(path)
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	checkError(t, err, path, fmt.Sprintf("is in use by process %d at %s", child.Process.Pid, testURL))

	kill(t, child)
	open(t, path)
}

func TestOpenExistingMakesNothing(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{root, file, filepath.Join(root, "none")} {
		if d, err := OpenExisting(path); d != nil || err != nil {
			t.Errorf("%s: %v, %v", path, d, err)
		}
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 {
		t.Errorf("it created %v, %v", left, err)
	}
	path := filepath.Join(root, "dir")
	held := open(t, path)
	if _, err := OpenExisting(path); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := OpenExisting(path)
	if err != nil || d == nil {
		t.Fatalf("got %v, %v", d, err)
	}
	_ = d.Close()
}

func TestCloseFreesTheDirectory(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	first := open(t, path)
	_, err := Open(path)
	checkError(t, err, path, "which is starting")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

func TestDefault(t *testing.T) {
	t.Parallel()
	home := func() (string, error) { return "/home/u", nil }
	homeless := func() (string, error) { return "", errors.New("none") }
	tests := map[string]struct {
		uid  int
		xdg  string
		home func() (string, error)
		want string
	}{
		"root":         {0, "/x", home, "/var/lib/lanyard"},
		"xdg":          {7, "/x", homeless, "/x/lanyard"},
		"relative xdg": {7, "x", home, "/home/u/.local/share/lanyard"},
		"home":         {7, "", home, "/home/u/.local/share/lanyard"},
		"homeless":     {7, "", homeless, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := defaultFor(test.uid, func(string) string { return test.xdg }, test.home)
			if got != test.want || (err != nil) != (test.want == "") {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

// TestKeysOpenToOthersAreRefused makes each file with a key readable and writable by other users.
func TestKeysOpenToOthersAreRefused(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("modes are not used there")
	}
	dir := filepath.Join(t.TempDir(), "data")
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	made, err := d.EnsureCertificates("127.0.0.1", clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	_, nodeErr := d.EnsureNode("here", nil, testURL, time.Time{}, clock.RealClock{})
	key := func() ([]byte, error) { return made.Admin.KeyPEM, nil }
	if err := errors.Join(nodeErr, d.EnsureKubeconfig(testURL, made), d.EnsureSigningKey(d.SigningKey(), key), d.EnsureEncryptionConfig(), d.Close()); err != nil {
		t.Fatal(err)
	}
	secret := regexp.MustCompile(`PRIVATE KEY|client-key|secretbox`)
	found := 0
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		text, _ := os.ReadFile(path)
		if err != nil || entry.IsDir() || !secret.Match(text) {
			return err
		}
		found++
		if err := os.Chmod(path, 0o666); err != nil {
			return err
		}
		_, err = Open(dir)
		var open *hint.Error
		if !errors.As(err, &open) || !strings.Contains(err.Error(), path+" is open to other users (mode 0666)") || !strings.HasSuffix(open.Hint, "chmod 600 "+path) {
			t.Errorf("%s: %v", path, err)
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil || found != 11 {
		t.Errorf("%d files hold keys, %v; want 11", found, err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatalf("with the modes restored: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestCheckInPlace(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if err := d.CheckInPlace(); err != nil {
		t.Error(err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Skip("a directory in use cannot be moved here")
	}
	if d.CheckInPlace() == nil {
		t.Error("a directory that was moved away is reported as in place")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, lockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if d.CheckInPlace() == nil {
		t.Error("another directory in its place is reported as in place")
	}
}
