package process_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lanyard.dev/lanyardtest"
)

// openPTY returns both ends of a new terminal.
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

// TestTerminal sends Ctrl-C, which must come once, and asks whether the command may read from the terminal.
func TestTerminal(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrder(t, authority)
			o.Act = "counter"
			master, slave := openPTY(t)
			s := o.prepare(t, uid)
			s.process.Stdin, s.process.Stdout = slave, slave
			s.process.SysProcAttr.Setsid, s.process.SysProcAttr.Setctty = true, true
			s.lines = bufio.NewScanner(master)
			s.begin()
			s.ready()
			if _, err := master.WriteString("\x03"); err != nil {
				t.Fatal(err)
			}
			for line := ""; !strings.Contains(line, "interrupt"); {
				line = s.line()
			}
			// It is passed on after all that came before.
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
