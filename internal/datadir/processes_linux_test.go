package datadir

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"lanyard.dev/internal/hint"
)

// TestOtherProcessesAreFound starts processes that look like lanyard up, of this user and of another one. This user does not look
// for the records of the first, and may not read the records of the second.
func TestOtherProcessesAreFound(t *testing.T) {
	useRuntimeDir(t)
	checkSeen(t, startNamedUp(t, nil), os.Geteuid())
	if os.Geteuid() == 0 {
		checkSeen(t, startNamedUp(t, &syscall.Credential{Uid: 65534, Gid: 65534}), 65534)
	}
}

// startNamedUp runs this test binary under the name of the program. Another user may not be able to reach its directory, so
// the binary is executed by its descriptor.
func startNamedUp(t *testing.T, as *syscall.Credential) int {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	child := &exec.Cmd{
		Path: "/proc/self/fd/3", Args: []string{"lanyard", "up"}, Dir: "/", ExtraFiles: []*os.File{self},
		Env:         append(os.Environ(), idleEnv+"=1"),
		SysProcAttr: &syscall.SysProcAttr{Credential: as, Pdeathsig: syscall.SIGKILL},
	}
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = child.Wait() })
	return child.Process.Pid
}

func checkSeen(t *testing.T, pid, uid int) {
	t.Helper()
	_, err := FindOne()
	if !errors.Is(err, ErrNoneRunning) {
		t.Fatalf("got %v, want ErrNoneRunning", err)
	}
	want := Process{PID: pid, User: userName(uint32(uid)), Mine: uid == os.Geteuid()}
	others := findOthers()
	if !slices.Contains(others, want) {
		t.Errorf("%+v is not among %+v", want, others)
	}
	if got, want := hint.Of(err), hint.Of(noneRunning(others, os.Geteuid() == 0)); got != want {
		t.Errorf("hint %q, want %q", got, want)
	}
}

// TestUnreadableRuntimeDirIsEmpty covers the situation after su, when the environment still names the directory of
// another user.
func TestUnreadableRuntimeDirIsEmpty(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may look everywhere")
	}
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0); err != nil {
		t.Fatal(err)
	}
	t.Setenv(runtimeDirEnv, filepath.Join(closed, "lanyard"))
	if _, err := FindOne(); !errors.Is(err, ErrNoneRunning) {
		t.Errorf("got %v, want ErrNoneRunning", err)
	}
}
