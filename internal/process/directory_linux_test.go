package process

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestSweepDirectories(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	running, err := tryDirectory(base, Self())
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * unlockedAge)
	for name, files := range map[string][]string{
		directoryPrefix + "dead": {lockName, "x"}, directoryPrefix + "old": {"x"}, directoryPrefix + "new": {"x"}, "other": {lockName},
	} {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chtimes(filepath.Join(base, directoryPrefix+"old"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(base, "other"), filepath.Join(base, directoryPrefix+"link")); err != nil {
		t.Fatal(err)
	}
	sweepDirectories(base)
	for name, want := range map[string]bool{
		filepath.Base(running.path): true, directoryPrefix + "dead": false, directoryPrefix + "old": false, directoryPrefix + "new": true,
		"other": true, "other/lock": true, directoryPrefix + "link": true,
	} {
		if _, err := os.Lstat(filepath.Join(base, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
	if err := running.remove(); err != nil {
		t.Error(err)
	}
}

// TestMountPoint has two hold it: the first to go leaves it, the last takes away what was made, and nothing else.
func TestMountPoint(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	path := filepath.Join(base, "a", "b")
	first, err := findMountPoint(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.made) != 2 {
		t.Skip("directories can be marked by root alone, and not on every file system")
	}
	for _, dir := range first.made {
		// Who cannot open it cannot lock it.
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != pointMode {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	second, err := findMountPoint(path)
	if err != nil {
		t.Fatal(err)
	}
	first.release()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("while another holds it: %v", err)
	}
	second.release()
	if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	third, err := findMountPoint(path)
	if err != nil {
		t.Fatal(err)
	}
	third.release()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a directory that was there is not: %v", err)
	}
}

// TestMountPointLocked has a stranger lock a directory that anybody can open, for good.
func TestMountPointLocked(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	stranger, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Close() }()
	if err := unix.Flock(int(stranger.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	found := make(chan error, 1)
	go func() {
		point, err := findMountPoint(path)
		point.release()
		found <- err
	}()
	select {
	case err := <-found:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the supervisor waits for the stranger")
	}
}

// TestGone tells the API server's word from a proxy's.
func TestGone(t *testing.T) {
	t.Parallel()
	pods := schema.GroupResource{Resource: "pods"}
	for name, test := range map[string]struct {
		err  error
		gone bool
	}{
		"no such pod":    {apierrors.NewNotFound(pods, "a"), true},
		"no such server": {apierrors.NewGenericServerResponse(http.StatusNotFound, "PATCH", pods, "a", "404 page not found", 0, true), false},
		"away":           {apierrors.NewServiceUnavailable("away"), false},
	} {
		if got := isGone(test.err); got != test.gone {
			t.Errorf("%s: %v", name, got)
		}
	}
}
