package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lanyard.dev/internal/files"
)

const lockName = "lock"

// Dir is a data directory that this process holds.
type Dir struct {
	path   string
	lock   *files.Lock
	record *record
}

// Open creates path (0700) if it is absent, and takes it for this process
// until Close or the end of the process, however it ends. It fails with a
// *hint.Error when another process holds the directory (ErrInUse), when it
// belongs to another user, is not writable, is not a directory, holds files
// and is not a data directory, or has a key in it that another user could have
// read or changed.
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, createError(path, err)
	}
	if err := check(path); err != nil {
		return nil, err
	}
	d := &Dir{path: path}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	if err := files.CheckPrivate(d.secrets()...); err != nil {
		_ = d.Close()
		return nil, err
	}
	// Only now is it certain that the directory is ours to change.
	if err := os.Chmod(path, 0o700); err != nil {
		_ = d.Close()
		return nil, unwritable(path, err)
	}
	return d, nil
}

// OpenExisting is Open for a path that a data directory has been before. For
// every other it returns nil and makes nothing.
func OpenExisting(path string) (*Dir, error) {
	if present, err := exists(filepath.Join(path, lockName)); err != nil || !present {
		return nil, nil // Open says what is wrong
	}
	return Open(path)
}

func createError(path string, err error) error {
	if info, statErr := os.Stat(path); statErr == nil && !info.IsDir() {
		return files.Unusable(path, "is not a directory", nil, "choose another one with --data-dir")
	}
	return files.Unusable(path, "cannot be created", err, "choose a directory you may write to with --data-dir")
}

// check refuses what must not be taken over: directories of other users, and
// directories with other content, whose mode Open would change.
func check(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return files.Unusable(path, "cannot be read", err, "choose another directory with --data-dir")
	}
	if owner, mine := files.OwnedByMe(info); !mine {
		return files.Unusable(path, fmt.Sprintf("belongs to another user (%s)", owner), nil,
			"run as that user, or choose another directory with --data-dir")
	}
	if foreign, err := holdsForeignFiles(path); err != nil || foreign != "" {
		return foreignError(path, foreign, err)
	}
	return nil
}

func foreignError(path, name string, err error) error {
	if err != nil {
		return files.Unusable(path, "cannot be read", err, "choose another directory with --data-dir")
	}
	return files.Unusable(path, fmt.Sprintf("is not a data directory: it holds %s, but no lock file", name), nil,
		"choose an empty or new directory with --data-dir")
}

// holdsForeignFiles names a file in a directory that was never opened by this
// package; the lock file is the first that Open makes.
func holdsForeignFiles(path string) (string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	foreign := ""
	for _, entry := range entries {
		switch entry.Name() {
		case lockName:
			return "", nil
		case "lost+found": // the root of a file system of its own
		default:
			foreign = entry.Name()
		}
	}
	return foreign, nil
}

// Held returns a *hint.Error if the directory was removed or replaced while this
// process held it: what is written then is lost.
func (d *Dir) Held() error {
	if d.lock.InPlace() {
		return nil
	}
	return files.Unusable(d.path, "was removed or replaced while it was in use", nil,
		"what was written since is lost: restore the directory from a backup, or start again without data")
}

func (d *Dir) takeLock() error {
	path := d.join(lockName)
	lock, err := files.TryLock(path)
	switch {
	case errors.Is(err, files.ErrLocked):
		return inUse(d.path, path)
	case err != nil:
		return unwritable(path, err)
	}
	d.lock = lock
	if err := d.hideFromGit(); err != nil {
		_ = d.Close()
		return err
	}
	if err := d.writeOwner(""); err != nil {
		_ = d.Close()
		return err
	}
	return nil
}

// hideFromGit keeps the keys out of the repository that the directory may be
// in.
func (d *Dir) hideFromGit() error {
	path := d.join(".gitignore")
	if present, err := exists(path); err != nil || present {
		return err
	}
	if err := os.WriteFile(path, []byte("*\n"), 0o600); err != nil {
		return unwritable(path, err)
	}
	return nil
}

// Close gives the directory free, and withdraws what Announce published. The
// lock file stays: removing it could take it from under the next owner.
func (d *Dir) Close() error {
	var errs []error
	if d.record != nil {
		errs = append(errs, d.record.withdraw())
		d.record = nil
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Truncate(0), d.lock.Release())
		d.lock = nil
	}
	return errors.Join(errs...)
}

func (d *Dir) join(name ...string) string {
	return filepath.Join(append([]string{d.path}, name...)...)
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
