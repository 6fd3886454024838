package files

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

func TestOneHolder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("second: %v, want ErrLocked", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	third, err := TryLock(path)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	if err := third.Release(); err != nil {
		t.Fatal(err)
	}
}

// TestReleaseWithACopy gives a child process a copy of the descriptor. Every child has one until it executes its program.
func TestReleaseWithACopy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=TestChild")
	child.Env = append(os.Environ(), "LANYARD_LOCK_TEST_CHILD=1")
	child.ExtraFiles = []*os.File{lock.File}
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := TryLock(path)
	if err != nil {
		t.Errorf("while a child has a copy: %v", err)
	} else if err := again.Release(); err != nil {
		t.Error(err)
	}
	_ = stdin.Close()
	_ = child.Wait()
}

// TestChild is the child process. It ends when its standard input ends.
func TestChild(t *testing.T) {
	if os.Getenv("LANYARD_LOCK_TEST_CHILD") == "" {
		t.Skip("run by TestReleaseWithACopy")
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
}

func TestLockOutlivesItsHandle(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	if _, err := TryLock(path); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		runtime.GC()
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("after the handle was dropped: %v, want ErrLocked", err)
	}
}

func TestUnwritable(t *testing.T) {
	t.Parallel()
	if _, err := TryLock(filepath.Join(t.TempDir(), "absent", "lock")); err == nil {
		t.Error("locked a file in no directory")
	}
}
