package files

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// ErrLocked reports that this process or another one holds the lock.
var ErrLocked = fileutil.ErrLocked

// Lock is a file that is locked until Release, or until the process ends in any way. On some systems no other process
// can read the file until then.
type Lock struct {
	*os.File
	released chan struct{}
	once     sync.Once
}

// TryLock locks the file at path exclusively. It creates the file (0600) if it is absent, and returns ErrLocked at once
// if the file is locked.
func TryLock(path string) (*Lock, error) {
	// On Windows TryLockFile accepts no os.O_CREATE beside os.O_RDWR.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	locked, err := fileutil.TryLockFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	l := &Lock{File: locked.File, released: make(chan struct{})}
	go l.hold()
	return l, nil
}

// hold keeps the file reachable. Otherwise the garbage collector closes the file, and so unlocks it, once a caller that
// never calls Release has dropped the Lock.
func (l *Lock) hold() {
	<-l.released
	runtime.KeepAlive(l.File)
}

// InPlace reports whether the path still names the locked file, which another process may have removed or replaced. If
// that is unknown, InPlace returns true.
func (l *Lock) InPlace() bool {
	mine, err := l.Stat()
	if err != nil {
		return true
	}
	named, err := os.Stat(l.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return err != nil || os.SameFile(mine, named)
}

// Release unlocks and closes the file; later calls do nothing. Closing alone is not enough: a child process that is
// being started holds a copy of the descriptor, and with it the lock, until it executes its program.
func (l *Lock) Release() error {
	var err error
	l.once.Do(func() {
		err = errors.Join(unlock(l.File), l.Close())
		close(l.released)
	})
	return err
}
