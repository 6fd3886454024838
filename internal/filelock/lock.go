package filelock

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// ErrLocked reports that the file is locked, by this process or another.
var ErrLocked = fileutil.ErrLocked

// Lock is a file that is locked until Release. On some systems nobody else
// can read it meanwhile.
type Lock struct {
	*os.File
	released chan struct{}
	once     sync.Once
}

// Try creates path (0600) if it is absent, and locks it without waiting.
func Try(path string) (*Lock, error) {
	// TryLockFile accepts no os.O_CREATE beside os.O_RDWR on Windows.
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

// hold keeps the file reachable: the garbage collector would close it, and so
// unlock it, once a caller who never calls Release has dropped the Lock.
func (l *Lock) hold() {
	<-l.released
	runtime.KeepAlive(l.File)
}

// Named tells whether the locked file is the one that its path names. If it
// cannot find out, it assumes so.
func (l *Lock) Named() bool {
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

// Release unlocks and closes the file; later calls do nothing. Closing it is
// not enough: a child that this process is just starting has a copy of the
// descriptor, and so of the lock, until it executes its program.
func (l *Lock) Release() error {
	var err error
	l.once.Do(func() {
		err = errors.Join(unlock(l.File), l.Close())
		close(l.released)
	})
	return err
}
