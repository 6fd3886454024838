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
	stop(t, s)
	if _, err := os.Stat(filepath.Dir(s.socket.path)); !os.IsNotExist(err) {
		t.Errorf("socket directory after stop: %v, want it gone", err)
	}
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
