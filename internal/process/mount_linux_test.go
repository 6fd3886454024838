package process

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
