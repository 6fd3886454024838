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

// otherUID and otherGID are IDs of a user who is not root and owns no files.
const otherUID, otherGID = 4321, 4322

// callersKey is a key in the caller's session keyring.
const callersKey = "lanyard-test-of-the-caller"

// attacker is a command of another user. It tries to get at what belongs to the caller, and prints one line for each attempt.
func attacker() {
	report := func(what string, result any) { fmt.Printf("%s: %v\n", what, result) }
	session, _ := unix.Getsid(0)
	report("session", session == os.Getpid())
	report("continue the supervisor", syscall.Kill(os.Getppid(), syscall.SIGCONT))
	report("type", typeInto("/dev/tty", 0, 1, 2))
	report("descriptors", inherited())
	var names []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	report("environment", names)
	data, err := os.ReadFile("secret")
	report("directory", oneLine(string(data), errors.Unwrap(err)))
	report("key", readKey())
	report("capabilities", capabilities())
	groups, _ := os.Getgroups()
	report("user", fmt.Sprint(os.Getuid(), os.Getgid(), groups))
	report("umask", fmt.Sprintf("%03o", syscall.Umask(0)))
	if path := os.Args[1]; path != "" {
		report("set-user-ID", effectiveUser(path))
	}
	fmt.Println("end")
}

// typeInto tries to put a line into the input of terminals. It returns the descriptors for which that succeeded.
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

// effectiveUser runs a copy of the program id and returns the effective UID that it prints.
func effectiveUser(path string) string {
	out, err := exec.Command(path, "-u").Output()
	return oneLine(strings.TrimSpace(string(out)), err)
}

// caller is a process of root with files, keys and capabilities that another user must not get.
type caller struct {
	dir    string // below a directory that others cannot enter
	id     string // a set-user-ID program of root
	secret *os.File
	keys   bool // whether the machine has keyrings
}

func newCaller(t *testing.T) *caller {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run commands as another user")
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

// start calls start, which starts the supervisor, on a thread with everything that programs inherit besides descriptors.
func (c *caller) start(t *testing.T, start func()) {
	t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // Never unlocked, so that the thread ends with the goroutine.
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

// equip gives the calling thread a key, capabilities that survive a change of user, and an empty file mode mask.
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

// attempts reads the output of attacker: the results by attempt.
func (s *supervised) attempts() map[string]string {
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

// TestNothingCrosses starts the attacker as another user, from a caller with everything that must not cross: once without
// options, once with everything that the caller can allow, and once without a mount.
func TestNothingCrosses(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	for name, test := range map[string]struct {
		change func(*order)
		want   map[string]string
	}{
		"no options": {func(*order) {}, nil},
		"all options": {func(o *order) { o.Escalate, o.Keep, o.Preserve = true, []int{4}, []string{"CALLERS_OTHER"} }, map[string]string{
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
			o.Act, o.Arg, o.UID, o.GID = "attacker", c.id, otherUID, otherGID
			test.change(o)
			s := o.prepare(t, -1)
			s.process.Dir = c.dir
			s.process.ExtraFiles = []*os.File{c.secret, c.secret, c.secret}
			c.start(t, s.startOnPipes)
			c.check(t, s.attempts(), test.want)
			if code := s.wait(); code != 0 {
				t.Errorf("exit code %d\n%s", code, s.stderr)
			}
		})
	}
}

// TestKeepClosedDescriptor asks to keep a descriptor that is not open.
func TestKeepClosedDescriptor(t *testing.T) {
	t.Parallel()
	newCaller(t)
	o := newOrder(t, lanyardtest.Start(t))
	o.Command, o.UID, o.GID, o.Keep = []string{"true"}, otherUID, otherGID, []int{77}
	s := o.start(t, -1)
	if code := s.wait(); code != 125 || !strings.Contains(s.stderr.String(), "descriptor 77 to keep is not open") {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
}

// renewing waits until it is killed. The command of --on-renew is the same program, which then acts as the attacker.
func renewing() {
	if os.Getenv("LANYARD_EXEC_PID") == "" {
		stubborn()
	}
	attacker()
}

// TestNothingCrossesToOnRenew runs the attacker as the command of --on-renew, which runs as the other user too.
func TestNothingCrossesToOnRenew(t *testing.T) {
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
	c.start(t, s.startOnPipes)
	_ = write.Close()
	s.lines = bufio.NewScanner(read)
	got := s.attempts()
	environment := "[HOME KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT KUBERNETES_SERVICE_PORT_HTTPS LANYARD_EXEC_PID LANYARD_POD_NAME LANYARD_POD_NAMESPACE LANYARD_SERVICEACCOUNT_DIR PATH PROCESS_TEST_COMMAND SHELL]"
	c.check(t, got, map[string]string{"environment": environment})
	s.signal(syscall.SIGKILL)
	<-s.ended
}
