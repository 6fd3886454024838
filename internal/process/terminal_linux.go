package process

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// terminal is the one that controls this process. It is nil where there is none, as under systemd or cron.
type terminal struct{ descriptor int }

func openTerminal() *terminal {
	descriptor, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return &terminal{descriptor}
}

func (t *terminal) close() {
	if t != nil {
		_ = unix.Close(t.descriptor)
	}
}

// isOurs reports whether this process is in the terminal's foreground, or has no terminal that anybody else could use.
func (t *terminal) isOurs() bool {
	if t == nil {
		return true
	}
	group, err := unix.IoctlGetUint32(t.descriptor, unix.TIOCGPGRP)
	return err == nil && int(group) == unix.Getpgrp()
}

// sends tells whether a signal comes, as far as can be known, from the terminal, which then has sent it to the command
// too: the process group, the command's as well, is in the terminal's foreground.
func (t *terminal) sends(signal syscall.Signal) bool {
	if t == nil {
		return false
	}
	switch signal {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGWINCH:
		return t.isOurs()
	}
	return false
}

// stopSelf stops this process as the signal does where no program handles it, and returns when it is continued. The
// kernel's own rule for it holds: nothing is stopped where no shell could continue it.
func stopSelf(signal syscall.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The default action is all zeros, and an action smaller than this, on every architecture.
	var standard, handled [16]uint64
	if !swapAction(signal, &standard, &handled) {
		return
	}
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), signal)
	swapAction(signal, &handled, nil)
}

func swapAction(signal syscall.Signal, action, old *[16]uint64) bool {
	const maskBytes = 8
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(old)), maskBytes, 0, 0)
	return errno == 0
}
