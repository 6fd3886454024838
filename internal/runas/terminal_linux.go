package runas

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ControllingTerminal is the controlling terminal of this process. It is nil if there is none, as under systemd or cron; the
// methods accept nil.
type ControllingTerminal struct{ descriptor int }

// OpenControllingTerminal returns the controlling terminal, or nil.
func OpenControllingTerminal() *ControllingTerminal {
	descriptor, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return &ControllingTerminal{descriptor}
}

// Close closes the descriptor.
func (t *ControllingTerminal) Close() {
	if t != nil {
		_ = unix.Close(t.descriptor)
	}
}

// InForeground reports whether this process is in the terminal's foreground process group. It is true without a terminal, since
// then no other process can be in the foreground.
func (t *ControllingTerminal) InForeground() bool {
	if t == nil {
		return true
	}
	group, err := unix.IoctlGetUint32(t.descriptor, unix.TIOCGPGRP)
	return err == nil && int(group) == unix.Getpgrp()
}

// Sends reports whether a signal probably came from the terminal. The terminal sends it to the whole foreground process group,
// so a command in the same group has got it too.
func (t *ControllingTerminal) Sends(signal syscall.Signal) bool {
	if t == nil {
		return false
	}
	switch signal {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGWINCH:
		return t.InForeground()
	}
	return false
}

// StopSelf stops this process as signal does by default, and returns when the process is continued. As usual, the kernel
// ignores the signal in an orphaned process group, which no shell could continue.
func StopSelf(signal syscall.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A sigaction of zeros is the default action. This array is at least as large as the structure on every architecture.
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
