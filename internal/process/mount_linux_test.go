package process

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMountPoint acquires a mount point twice. The first release keeps it; the second removes the directories that were
// created, and no others.
func TestMountPoint(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	path := filepath.Join(base, "a", "b")
	first, err := acquireMountPoint(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.created) != 2 {
		t.Skip("only root can mark directories, and not on every file system")
	}
	for _, dir := range first.created {
		// A user who cannot open the directory cannot lock it.
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != mountPointMode {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	second, err := acquireMountPoint(path)
	if err != nil {
		t.Fatal(err)
	}
	first.release()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the mount point is missing while another supervisor holds it: %v", err)
	}
	second.release()
	if left, err := os.ReadDir(base); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	third, err := acquireMountPoint(path)
	if err != nil {
		t.Fatal(err)
	}
	third.release()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a directory that existed before was removed: %v", err)
	}
}

// TestMountPointLocked acquires a directory that another program keeps locked.
func TestMountPointLocked(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	other, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	found := make(chan error, 1)
	go func() {
		point, err := acquireMountPoint(path)
		point.release()
		found <- err
	}()
	select {
	case err := <-found:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the supervisor waits for the other program")
	}
}
