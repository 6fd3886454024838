//go:build !windows

package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lanyard.dev/internal/hint"
)

func make600(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestModes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[fs.FileMode]struct{ private, guarded, hidden bool }{
		0o600: {true, true, true}, 0o400: {true, true, true},
		0o640: {false, true, true}, 0o644: {false, true, false}, 0o604: {false, true, false}, 0o440: {false, true, true},
		0o660: {false, false, true}, 0o620: {false, false, true}, 0o602: {false, false, true}, 0o666: {false, false, false},
		0o610: {false, true, true}, 0o601: {false, true, true},
	} {
		path := make600(t, "sa.key")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{path, link} {
			if err := CheckPrivate(path); (err == nil) != want.private {
				t.Errorf("%04o: private: %v", mode, err)
			}
			if err := CheckUnwritable(path); (err == nil) != want.guarded {
				t.Errorf("%04o: guarded: %v", mode, err)
			}
			if hidden := !slices.Contains(WorldReadable(path), path); hidden != want.hidden {
				t.Errorf("%04o: hidden: %v", mode, hidden)
			}
		}
	}
}

func TestEveryFileIsNamed(t *testing.T) {
	t.Parallel()
	good, bad, worse := make600(t, "good"), make600(t, "bad"), make600(t, "worse")
	for path, mode := range map[string]fs.FileMode{bad: 0o640, worse: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	err := CheckPrivate(good, filepath.Join(t.TempDir(), "absent"), bad, worse)
	var open *hint.Error
	if !errors.As(err, &open) {
		t.Fatalf("got %v", err)
	}
	want := "key file " + bad + " is open to other users (mode 0640)\nkey file " + worse + " is open to other users (mode 0666)"
	if err.Error() != want || !strings.HasSuffix(open.Hint, "chmod 600 "+bad+" && chmod 600 "+worse) {
		t.Errorf("got %q, hint %q", err, open.Hint)
	}
}

// TestUnknownFile checks that a file whose owner and mode cannot be read is not treated as absent.
func TestUnknownFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(make600(t, "file"), "below")
	for name, err := range map[string]error{"private": CheckPrivate(path), "guarded": CheckUnwritable(path)} {
		var open *hint.Error
		if err == nil || errors.As(err, &open) {
			t.Errorf("%s: %v, want the error of the system", name, err)
		}
	}
}

func TestFileOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := make600(t, "sa.key")
	if err := os.Chown(path, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"private": CheckPrivate(path), "guarded": CheckUnwritable(path)} {
		if err == nil || !strings.Contains(err.Error(), "belongs to another user (uid 12345)") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
