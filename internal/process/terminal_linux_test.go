package process_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"lanyard.dev/lanyardtest"
)

// openPTY returns both sides of a new pseudo terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs terminals: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	descriptor := int(master.Fd())
	if err := unix.IoctlSetPointerInt(descriptor, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(descriptor, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

// TestTerminal checks that Ctrl-C reaches the command once, and that the command can read from the terminal.
func TestTerminal(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	callers := users()
	if os.Geteuid() == 0 {
		callers["root for another user"] = -1
	}
	for name, uid := range callers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrder(t, authority)
			o.Act = "counter"
			if strings.HasSuffix(name, "another user") {
				o.UID, o.GID = otherUID, otherGID
			}
			master, slave := openPTY(t)
			s := o.prepare(t, uid)
			s.process.Stdin, s.process.Stdout = slave, slave
			s.process.SysProcAttr.Setsid, s.process.SysProcAttr.Setctty = true, true
			s.lines = bufio.NewScanner(master)
			s.startProcess()
			s.ready()
			if _, err := master.WriteString("\x03"); err != nil {
				t.Fatal(err)
			}
			for line := ""; !strings.Contains(line, "interrupt"); {
				line = s.line()
			}
			// The supervisor forwards signals in order.
			s.signal(syscall.SIGUSR1)
			if got := s.line(); got != "interrupted 1 times" {
				t.Error(got)
			}
			if _, err := master.WriteString("word\n"); err != nil {
				t.Fatal(err)
			}
			for line := ""; line != "read word"; {
				line = s.line()
			}
			if code := s.wait(); code != 3 {
				t.Errorf("exit code %d\n%s", code, s.stderr)
			}
		})
	}
}

// onTerminal starts a supervisor of root with a command of another user on a terminal. It returns both sides of the terminal.
// change is called twice: with the order alone, and with the supervisor before it starts.
func onTerminal(t *testing.T, authority *lanyardtest.Authority, change func(*order, *supervised)) (s *supervised, master, slave *os.File) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run commands as another user")
	}
	o := newOrder(t, authority)
	o.UID, o.GID = otherUID, otherGID
	change(o, nil)
	master, slave = openPTY(t)
	s = o.prepare(t, -1)
	s.process.Stdin, s.process.Stdout = slave, slave
	s.process.SysProcAttr.Setsid, s.process.SysProcAttr.Setctty = true, true
	change(o, s)
	s.lines = bufio.NewScanner(master)
	s.startProcess()
	// A wait for a line ends when no process holds the slave side any more.
	late := time.AfterFunc(patience, func() { _, _ = s.process.Process.Kill(), slave.Close() })
	t.Cleanup(func() { late.Stop() })
	return s, master, slave
}

// until reads lines until one equals want.
func (s *supervised) until(want string) {
	s.t.Helper()
	for line := ""; line != want; line = strings.TrimRight(s.line(), "\r") {
	}
}

func (s *supervised) press(master *os.File, keys string) {
	s.t.Helper()
	if _, err := master.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

func settings(t *testing.T, terminal *os.File) unix.Termios {
	t.Helper()
	got, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *got
}

// TestTerminalOfItsOwn runs the attacker on a terminal. Nothing that it types may reach the caller's terminal, which must have
// its settings back in the end.
func TestTerminalOfItsOwn(t *testing.T) {
	t.Parallel()
	var before unix.Termios
	s, _, slave := onTerminal(t, lanyardtest.Start(t), func(o *order, s *supervised) { o.Act = "attacker" })
	before = settings(t, slave)
	got := s.attempts()
	if got["session"] != "true" || got["descriptors"] != "[]" || got["user"] != fmt.Sprintf("%d %d []", otherUID, otherGID) {
		t.Errorf("the command found %v", got)
	}
	if code := s.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
	if typed, err := unix.IoctlGetInt(int(slave.Fd()), unix.TIOCINQ); err != nil || typed != 0 {
		t.Errorf("%d bytes wait in the caller's terminal, %v; the command could type into %s", typed, err, got["type"])
	}
	if after := settings(t, slave); after != before {
		t.Errorf("the terminal was left as %+v, not %+v", after, before)
	}
}

// TestTerminalRedirected redirects all but one of standard input, output and error. The one that is a terminal is the command's
// own.
func TestTerminalRedirected(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	script := `test -t 0 && echo input; test -t 1 && echo output; test "$(tty </dev/tty)" != not && echo ours; echo typed >/dev/tty; exit 4`
	for name, test := range map[string]struct {
		input, output bool
		want          []string
	}{
		"input": {true, false, []string{"typed"}}, "output": {false, true, []string{"output", "ours", "typed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, _ := onTerminal(t, authority, func(o *order, s *supervised) {
				o.Command = []string{"sh", "-c", script}
				if s == nil {
					return
				}
				if !test.input {
					s.process.Stdin = nil
				}
				if !test.output {
					s.process.Stdout, s.process.SysProcAttr.Ctty = nil, 0
				} else if !test.input {
					s.process.SysProcAttr.Ctty = 1
				}
			})
			for _, want := range test.want {
				s.until(want)
			}
			if code := s.wait(); code != 4 {
				t.Errorf("exit code %d\n%s", code, s.stderr)
			}
		})
	}
}

// resizable prints the size of its terminal, at first and after each change, and ends when it reads a line.
func resizable() {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	printSize := func() {
		size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		fmt.Println("size", size.Row, size.Col, err)
	}
	printSize()
	fmt.Println("ready", os.Getenv("LANYARD_POD_NAME"))
	go func() {
		for range changes {
			printSize()
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	fmt.Println("read", lines.Text())
	os.Exit(3)
}

func TestTerminalSize(t *testing.T) {
	t.Parallel()
	s, master, _ := onTerminal(t, lanyardtest.Start(t), func(o *order, s *supervised) { o.Act = "resizable" })
	resize := func(rows, columns uint16) {
		if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
			t.Fatal(err)
		}
	}
	s.until("size 0 0 <nil>")
	s.ready()
	resize(31, 97)
	s.until("size 31 97 <nil>")
	s.press(master, "done\r")
	s.until("read done")
	if code := s.wait(); code != 3 {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
}

// TestTerminalRestored ends the supervisor by a signal while the terminal is raw.
func TestTerminalRestored(t *testing.T) {
	t.Parallel()
	s, _, slave := onTerminal(t, lanyardtest.Start(t), func(o *order, s *supervised) { o.Act = "resizable" })
	before := settings(t, slave)
	s.until("size 0 0 <nil>")
	s.ready()
	eventually(t, "the terminal is raw", func() bool { return settings(t, slave).Lflag&unix.ICANON == 0 })
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
	if after := settings(t, slave); after != before {
		t.Errorf("the terminal was left as %+v, not %+v", after, before)
	}
}

// TestTerminalSuspended presses Ctrl-Z under a shell. The shell gets the terminal with its own settings, and continues the
// command.
func TestTerminalSuspended(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	shell := `set -m; "$0"; echo "stopped $?, $(stty -a </dev/tty | tr ' ;' '\n\n' | grep -x -e -icanon -e icanon)"; fg >/dev/null; echo "end $?"`
	s, master, _ := onTerminal(t, authority, func(o *order, s *supervised) {
		o.Act = "resizable"
		if s != nil {
			s.process.Path, s.process.Args = "/bin/sh", []string{"sh", "-c", shell, self}
		}
	})
	s.until("size 0 0 <nil>")
	s.ready()
	s.press(master, "\x1a")
	s.until(fmt.Sprintf("stopped %d, icanon", 128+int(syscall.SIGTSTP)))
	s.press(master, "done\r")
	s.until("read done")
	s.until("end 3")
	s.wait()
}

// slowReader reads a terminal with pauses, like a slow serial line.
type slowReader struct {
	from *os.File
	pace *time.Ticker
}

func (r slowReader) Read(p []byte) (int, error) {
	<-r.pace.C
	return r.from.Read(p)
}

// TestTerminalSlow reads the command's output long after the command has ended.
func TestTerminalSlow(t *testing.T) {
	t.Parallel()
	const lines = 190
	s, master, _ := onTerminal(t, lanyardtest.Start(t), func(o *order, s *supervised) {
		o.Command = []string{"sh", "-c", `i=0; while [ $i -lt 190 ]; do echo "line $i, which is one of many that the command has shown before its end"; i=$((i+1)); done; echo last`}
	})
	pace := time.NewTicker(1100 * time.Millisecond)
	defer pace.Stop()
	s.lines = bufio.NewScanner(slowReader{master, pace})
	for i := range lines {
		s.until(fmt.Sprintf("line %d, which is one of many that the command has shown before its end", i))
	}
	s.until("last")
	if code := s.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
}

// TestTerminalForeground starts a supervisor in the background and brings it to the foreground. Bash sends no signal for that.
func TestTerminalForeground(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skipf("needs bash: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, master, _ := onTerminal(t, lanyardtest.Start(t), func(o *order, s *supervised) {
		o.Act = "resizable"
		if s != nil {
			// Bash uses standard error as the terminal for job control.
			s.process.Path, s.process.Args = bash, []string{"bash", "-c", `exec 2>/dev/tty; set -m; "$0" </dev/tty & read; fg >/dev/null; echo "end $?"`, self}
		}
	})
	s.until("size 0 0 <nil>")
	s.ready()
	s.press(master, "shell\r")
	s.until("shell")
	s.press(master, "done\r")
	s.until("read done")
	s.until("end 3")
	s.wait()
}

// TestTerminalStopsItself runs a command that stops itself again and again while no shell would continue it. Every stop makes the
// supervisor renew the lease in the caller's name, so their number must be limited.
func TestTerminalStopsItself(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	var events watch.Interface
	s, _, _ := onTerminal(t, authority, func(o *order, s *supervised) {
		o.Command = []string{"sh", "-c", `i=0; while [ $i -lt 100 ]; do kill -STOP $$; i=$((i+1)); done; echo over`}
		if s != nil {
			var err error
			if events, err = authority.Client().CoreV1().Pods(o.Spec.Namespace).Watch(t.Context(), metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	})
	defer events.Stop()
	began := time.Now()
	s.until("over")
	if code := s.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
	changes := 0
	for event := range events.ResultChan() {
		if changes++; event.Type == watch.Deleted {
			break
		}
	}
	// Two changes for each suspension, besides the changes that every pod has: creation, status, lease and deletion.
	if most := 2*(5+int(time.Since(began).Seconds())) + 6; changes > most {
		t.Errorf("%d changes of the pod, want at most %d", changes, most)
	}
}
