package filelock

import (
	"errors"
	"os"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// ErrLocked reports that the file is locked, by this process or another.
var ErrLocked = fileutil.ErrLocked

// Lock is a file that is locked. On some systems nobody else can read it.
type Lock struct{ *os.File }

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
	return &Lock{locked.File}, nil
}

// Release unlocks and closes the file. Closing it is not enough: a child that
// this process is just starting has a copy of the descriptor, and so of the
// lock, until it executes its program.
func (l *Lock) Release() error {
	return errors.Join(unlock(l.File), l.Close())
}
