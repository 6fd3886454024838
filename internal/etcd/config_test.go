package etcd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketIsPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etcd")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{Dir: dir, UnsafeNoFsync: true})
	checkPrivate(t, s.socket.path)
	if want := "unix://" + filepath.Join(dir, socketName); s.Endpoint() != want {
		t.Errorf("endpoint %q, want %q", s.Endpoint(), want)
	}
}

func TestUnaddressablePathGetsAnotherSocket(t *testing.T) {
	t.Parallel()
	for _, name := range []string{strings.Repeat("d", 120), "a#b", "a?b", "a%41"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkSocketElsewhere(t, filepath.Join(t.TempDir(), name))
		})
	}
}

func checkSocketElsewhere(t *testing.T, dir string) {
	t.Helper()
	s := start(t, Config{Dir: dir, UnsafeNoFsync: true})
	if len(s.socket.path) > maxSocketPath {
		t.Errorf("socket path %q is too long", s.socket.path)
	}
	checkPrivate(t, s.socket.path)
	if _, err := client(t, s).Put(t.Context(), "a", "1"); err != nil {
		t.Error(err)
	}
	checkConnect(t, dir)
	stop(t, s)
	if _, err := Connect(dir); err == nil {
		t.Error("found a socket after the stop")
	}
	if _, err := os.Stat(filepath.Dir(s.socket.path)); !os.IsNotExist(err) {
		t.Errorf("socket directory after stop: %v, want it gone", err)
	}
}

// checkConnect reads the key "a", as another process does.
func checkConnect(t *testing.T, dir string) {
	t.Helper()
	connected, err := Connect(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	if got, err := connected.Get(t.Context(), "a"); err != nil || got.Count != 1 {
		t.Errorf("read %v, %v", got, err)
	}
}

func TestConnect(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etcd")
	if _, err := Connect(dir); err == nil {
		t.Error("no error before the start")
	}
	s := start(t, Config{Dir: dir, UnsafeNoFsync: true})
	if _, err := client(t, s).Put(t.Context(), "a", "1"); err != nil {
		t.Fatal(err)
	}
	checkConnect(t, dir)
}

// TestLinkOfAKilledMember starts where a killed member has left its link.
func TestLinkOfAKilledMember(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere/"+socketName, filepath.Join(dir, socketName)); err != nil {
		t.Skip(err)
	}
	checkSocketElsewhere(t, dir)
}

func checkPrivate(t *testing.T, path string) {
	t.Helper()
	for path, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
}
