package process_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lanyard.dev/internal/podannotation"
	"lanyard.dev/lanyardtest"
)

// otherUID and otherGID are the numbers of a user who is not root and owns nothing.
const otherUID, otherGID = 4321, 4322

// callersKey is a key in the caller's session keyring.
const callersKey = "lanyard-test-of-the-caller"

// burglar tries what a command may have of the user who started it for another. It prints one line for each attempt.
func burglar() {
	tell := func(what string, result any) { fmt.Printf("%s: %v\n", what, result) }
	session, _ := unix.Getsid(0)
	tell("session", session == os.Getpid())
	tell("continue the supervisor", syscall.Kill(os.Getppid(), syscall.SIGCONT))
	tell("type", typeInto("/dev/tty", 0, 1, 2))
	tell("descriptors", inherited())
	var names []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	tell("environment", names)
	data, err := os.ReadFile("secret")
	tell("directory", oneLine(string(data), errors.Unwrap(err)))
	tell("key", readKey())
	tell("capabilities", capabilities())
	groups, _ := os.Getgroups()
	tell("user", fmt.Sprint(os.Getuid(), os.Getgid(), groups))
	tell("umask", fmt.Sprintf("%03o", syscall.Umask(0)))
	if path := os.Args[1]; path != "" {
		tell("set-user-ID", effectiveUser(path))
	}
	fmt.Println("end")
}

// typeInto tries to put a line into the input of terminals, and says where that went well.
func typeInto(path string, descriptors ...int) (done []string) {
	if tty, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		descriptors = append(descriptors, int(tty.Fd()))
	} else {
		done = append(done, fmt.Sprint(errors.Unwrap(err)))
	}
	for _, descriptor := range descriptors {
		for _, char := range []byte("x\n") {
			if unix.IoctlSetPointerInt(descriptor, unix.TIOCSTI, int(char)) == nil {
				done = append(done, fmt.Sprint(descriptor))
			}
		}
	}
	return done
}

// inherited returns the descriptors that this program did not open itself.
func inherited() (all []int) {
	for descriptor := 3; descriptor < 300; descriptor++ {
		if flags, err := unix.FcntlInt(uintptr(descriptor), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			all = append(all, descriptor)
		}
	}
	return all
}

func readKey() string {
	key, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", callersKey, 0)
	if err != nil {
		return err.Error()
	}
	data := make([]byte, 100)
	count, err := unix.KeyctlBuffer(unix.KEYCTL_READ, key, data, 0)
	if err != nil {
		return err.Error()
	}
	return string(data[:count])
}

// effectiveUser runs a copy of id.
func effectiveUser(path string) string {
	out, err := exec.Command(path, "-u").Output()
	return oneLine(strings.TrimSpace(string(out)), err)
}

// caller is a process of root's, which has what another user must not get.
type caller struct {
	dir    string // below one that others cannot enter
	id     string // a set-user-ID program of root's
	secret *os.File
	keys   bool // the machine has keyrings
}

func newCaller(t *testing.T) *caller {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, who alone may run commands as another user")
	}
	base := t.TempDir()
	c := &caller{dir: filepath.Join(base, "closed", "open"), id: filepath.Join(base, "id")}
	program, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.MkdirAll(c.dir, 0o755), os.WriteFile(filepath.Join(c.dir, "secret"), []byte("read"), 0o644), os.Chmod(filepath.Dir(c.dir), 0o700),
		os.WriteFile(c.id, program, 0o755), os.Chmod(c.id, 0o755|os.ModeSetuid),
		os.Chmod(base, 0o755), os.Chmod(filepath.Dir(base), 0o755),
		os.WriteFile(filepath.Join(base, "secret"), []byte("secret"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	if c.secret, err = os.Open(filepath.Join(base, "secret")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.secret.Close() })
	return c
}

// start starts the supervisor from a thread that has what programs inherit beside descriptors.
func (c *caller) start(t *testing.T, start func()) {
	t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		c.keys, err = c.equip()
		if err == nil {
			start()
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
}

// equip gives the calling thread a key, capabilities that outlive a change of user, and a mask of modes that masks nothing.
func (c *caller) equip() (keys bool, err error) {
	if _, err = unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err == nil {
		keys = true
		_, err = unix.AddKey("user", callersKey, []byte("read"), unix.KEY_SPEC_SESSION_KEYRING)
	} else if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		err = nil
	}
	if err != nil {
		return keys, err
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return keys, err
	}
	unix.Umask(0)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return keys, err
	}
	data[0].Inheritable, data[1].Inheritable = data[0].Permitted, data[1].Permitted
	const noSetuidFixup = 1 << 2
	return keys, errors.Join(
		unix.Capset(&header, &data[0]),
		unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_DAC_OVERRIDE, 0, 0),
		unix.Prctl(unix.PR_SET_SECUREBITS, noSetuidFixup, 0, 0, 0),
	)
}

// found reads what the burglar says.
func (s *supervised) found() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for line := s.line(); line != "end"; line = s.line() {
		what, result, _ := strings.Cut(line, ": ")
		all[what] = result
	}
	return all
}

func (c *caller) check(t *testing.T, got map[string]string, changed map[string]string) {
	t.Helper()
	want := map[string]string{
		"session": "true", "continue the supervisor": "operation not permitted", "type": "[no such device or address]", "descriptors": "[]",
		"environment": "[HOME KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_SERVICE_PORT_HTTPS LANYARD_POD_NAME LANYARD_POD_NAMESPACE LANYARD_SERVICEACCOUNT_DIR PATH PROCESS_TEST_COMMAND SHELL]",
		"directory":   "no such file or directory", "capabilities": "[]", "user": fmt.Sprintf("%d %d []", otherUID, otherGID), "umask": "022",
		"set-user-ID": fmt.Sprint(otherUID), "key": "required key not available",
	}
	for what, result := range changed {
		want[what] = result
	}
	if !c.keys {
		delete(want, "key")
	}
	for what, result := range want {
		if got[what] != result {
			t.Errorf("%s: %q, want %q", what, got[what], result)
		}
	}
}

// TestNothingCrosses starts a command of another user from a caller who has all that must stay behind, and has it try
// each; then again with what may be asked for.
func TestNothingCrosses(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	for name, test := range map[string]struct {
		change func(*order)
		want   map[string]string
	}{
		"nothing asked for": {func(*order) {}, nil},
		"asked for": {func(o *order) { o.Escalate, o.Keep, o.Preserve = true, []int{4}, []string{"CALLERS_OTHER"} }, map[string]string{
			"descriptors": "[4]", "set-user-ID": "0",
			"environment": "[CALLERS_OTHER HOME KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_SERVICE_PORT_HTTPS LANYARD_POD_NAME LANYARD_POD_NAMESPACE LANYARD_SERVICEACCOUNT_DIR PATH PROCESS_TEST_COMMAND SHELL]",
		}},
		"without a mount": {func(o *order) { o.NoMount = true }, map[string]string{
			"environment": "[HOME KUBECONFIG LANYARD_POD_NAME LANYARD_POD_NAMESPACE LANYARD_SERVICEACCOUNT_DIR PATH PROCESS_TEST_COMMAND SHELL]",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCaller(t)
			o := newOrder(t, authority)
			o.Act, o.Arg, o.UID, o.GID = "burglar", c.id, otherUID, otherGID
			test.change(o)
			s := o.prepare(t, -1)
			s.process.Dir = c.dir
			s.process.ExtraFiles = []*os.File{c.secret, c.secret, c.secret}
			c.start(t, s.connect)
			c.check(t, s.found(), test.want)
			if code := s.wait(); code != 0 {
				t.Errorf("exit code %d\n%s", code, s.stderr)
			}
		})
	}
}

// TestKeepNothing asks for a descriptor that is not there.
func TestKeepNothing(t *testing.T) {
	t.Parallel()
	newCaller(t)
	o := newOrder(t, lanyardtest.Start(t))
	o.Command, o.UID, o.GID, o.Keep = []string{"true"}, otherUID, otherGID, []int{77}
	s := o.start(t, -1)
	if code := s.wait(); code != 125 || !strings.Contains(s.stderr.String(), "descriptor 77 to keep is not open") {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
}

// renewing waits to be ended, and is what runs on a renewal too: then it tries what a burglar tries.
func renewing() {
	if os.Getenv("LANYARD_EXEC_PID") == "" {
		stubborn()
	}
	burglar()
}

// TestOnRenewCrosses has the command of --on-renew, which is the other user's as well, try the same.
func TestOnRenewCrosses(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	o := newOrder(t, lanyardtest.StartWith(t, lanyardtest.Options{MinTokenExpiration: time.Second}))
	o.Act, o.UID, o.GID, o.TTL, o.Keep = "renewing", otherUID, otherGID, 2*time.Second, []int{4}
	o.OnRenew = podannotation.Notice{Command: []string{"/proc/self/exe", c.id}}
	s := o.prepare(t, -1)
	s.process.Dir = c.dir
	s.process.ExtraFiles = []*os.File{c.secret, c.secret}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = read.Close() })
	s.process.Stderr = write
	c.start(t, s.connect)
	_ = write.Close()
	s.lines = bufio.NewScanner(read)
	got := s.found()
	environment := "[HOME KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_SERVICE_PORT_HTTPS LANYARD_EXEC_PID LANYARD_POD_NAME LANYARD_POD_NAMESPACE LANYARD_SERVICEACCOUNT_DIR PATH PROCESS_TEST_COMMAND SHELL]"
	c.check(t, got, map[string]string{"environment": environment})
	s.signal(syscall.SIGKILL)
	<-s.ended
}
