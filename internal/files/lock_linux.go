package files

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// unlock undoes both kinds of lock that TryLockFile takes on Linux: one of the open file description or, on kernels
// without those, flock.
func unlock(f *os.File) error {
	whole := syscall.Flock_t{Type: syscall.F_UNLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &whole); err == nil {
		return nil
	}
	return syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
}
