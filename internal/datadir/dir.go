package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
)

const (
	lockName = "lock"
	// lostAndFound is in the root of a file system of its own.
	lostAndFound = "lost+found"
)

// Dir is a data directory that this process has locked.
type Dir struct {
	path   string
	lock   *files.Lock
	record *record
}

// Open locks the directory path for this process until Close or the end of the process. If the directory is absent, Open
// creates it with mode 0700. It returns a *hint.Error if another process has the lock (ErrInUse), if the directory belongs
// to another user, is not writable, is not a directory, or has files and is not a data directory, or if another user could
// have read or changed a key in it.
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
	// Until here the directory might have belonged to another process or program.
	if err := os.Chmod(path, 0o700); err != nil {
		_ = d.Close()
		return nil, unwritable(path, err)
	}
	return d, nil
}

// OpenExisting opens a directory that has been a data directory before. For any other path it returns nil and creates
// nothing.
func OpenExisting(path string) (*Dir, error) {
	if present, err := exists(filepath.Join(path, lockName)); err != nil || !present {
		return nil, nil // Open reports what is wrong
	}
	return Open(path)
}

// createError returns the error of a directory that could not be created.
func createError(path string, err error) error {
	if info, statErr := os.Stat(path); statErr == nil && !info.IsDir() {
		return files.Unusable(path, "is not a directory", nil, "choose another one with --data-dir")
	}
	return files.Unusable(path, "cannot be created", err, "choose a directory you may write to with --data-dir")
}

// check refuses directories of other users, and directories with other content, because Open would change their mode.
func check(path string) error {
	if err := checkOwner(path); err != nil {
		return err
	}
	if foreign, err := foreignFile(path); err != nil || foreign != "" {
		return foreignError(path, foreign, err)
	}
	return nil
}

func checkOwner(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return files.Unusable(path, "cannot be read", err, "choose another directory with --data-dir")
	}
	if owner, mine := files.OwnedByMe(info); !mine {
		return files.Unusable(path, fmt.Sprintf("belongs to another user (%s)", owner), nil,
			"run as that user, or choose another directory with --data-dir")
	}
	return nil
}

func foreignError(path, name string, err error) error {
	if err != nil {
		return files.Unusable(path, "cannot be read", err, "choose another directory with --data-dir")
	}
	if name == restoring {
		return files.Unusable(path, "is not a data directory: a restore has begun there and has not finished", nil,
			"wait for its end; if it was interrupted, remove "+path+" and restore again")
	}
	return files.Unusable(path, fmt.Sprintf("is not a data directory: it holds %s, but no lock file", name), nil,
		"choose an empty or new directory with --data-dir")
}

// foreignFile returns the name of a file in a directory that this package has never opened, or "". The lock file is
// the first file that Open creates.
func foreignFile(path string) (string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	foreign := ""
	for _, entry := range entries {
		switch entry.Name() {
		case lockName:
			return "", nil
		case lostAndFound:
		default:
			if foreign != restoring {
				foreign = entry.Name()
			}
		}
	}
	return foreign, nil
}

// CheckInPlace returns a *hint.Error if the directory was removed or replaced while this process had it locked. Everything written
// after that is lost.
func (d *Dir) CheckInPlace() error {
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

// hideFromGit keeps the keys out of a git repository in which the directory may be.
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

// Close releases the lock and withdraws what Announce published. It keeps the lock file, because another process may have
// locked it already.
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

// join returns the path of a file in the directory.
func (d *Dir) join(name ...string) string {
	return filepath.Join(append([]string{d.path}, name...)...)
}

// exists reports whether there is a file at path. It does not follow a symbolic link.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ErrInUse reports that another process has locked the directory.
var ErrInUse = errors.New("in use")

// owner is the content of the lock file: the process that has the lock. It is only information for the user: the lock alone
// determines which process may use the directory.
type owner struct {
	PID int    `json:"pid"`
	URL string `json:"url,omitempty"`
}

func (o owner) String() string {
	switch {
	case o.PID == 0:
		return "another process"
	case o.URL == "":
		return fmt.Sprintf("process %d, which is starting", o.PID)
	}
	return fmt.Sprintf("process %d at %s", o.PID, o.URL)
}

// writeOwner rewrites the lock file in place, because a new file would not be locked.
func (d *Dir) writeOwner(url string) error {
	data, err := json.Marshal(owner{PID: os.Getpid(), URL: url})
	if err != nil {
		return fmt.Errorf("encode the owner of %s: %w", d.path, err)
	}
	if err := d.lock.Truncate(0); err != nil {
		return unwritable(d.lock.Name(), err)
	}
	if _, err := d.lock.WriteAt(append(data, '\n'), 0); err != nil {
		return unwritable(d.lock.Name(), err)
	}
	return nil
}

// inUse returns an error with the owner of the lock. The owner is unknown where a lock also prevents reading, as on Windows,
// and while the owner rewrites the file.
func inUse(dir, lockFile string) error {
	var o owner
	data, err := files.Read(lockFile, files.MaxText)
	if err != nil || json.Unmarshal(data, &o) != nil {
		o = owner{}
	}
	return hint.New(fmt.Errorf("%s is %w by %s", dir, ErrInUse, o),
		"use that instance with lanyard kubectl, stop it, or choose another directory with --data-dir")
}

// dataMark is a file that marks the directory as one whose etcd has data.
const dataMark = "has-data"

const dataMarkText = `There is data in the directory etcd beside this file. lanyard up does not start if that directory is gone while this file
is here. To start without data, remove this file too.
`

// CheckData returns an error if the data of etcd is missing although there was some, for example because only the keys were
// restored from a backup or a disk is not mounted. A start without the data would look as if everything had been deleted.
func (d *Dir) CheckData() error {
	mark := d.join(dataMark)
	marked, err := exists(mark)
	if err != nil {
		return unreadable(mark, err)
	}
	stored, err := d.hasData()
	if err != nil {
		return unreadable(d.EtcdDir(), err)
	}
	if !marked || stored {
		return nil
	}
	return files.Unusable(d.EtcdDir(), "is missing or empty, but it has held the data that belongs to the keys in "+d.path, nil,
		"restore it from a backup; to start without data, remove "+mark+" too")
}

// MarkData records for CheckData that there is data.
func (d *Dir) MarkData() error {
	path := d.join(dataMark)
	if marked, err := exists(path); err != nil || marked {
		return err
	}
	if err := files.Write(path, []byte(dataMarkText), 0o600); err != nil {
		return unwritable(path, err)
	}
	return nil
}

// hasData reports whether etcd has ever run on its directory. A log without a database, or a database without a log, also
// means that it has.
func (d *Dir) hasData() (bool, error) {
	files, err := os.ReadDir(d.join(etcdName, "member", "wal"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(files) > 0 {
		return len(files) > 0, err
	}
	return exists(d.join(etcdName, "member", "snap", "db"))
}

// Default returns the directory that is used when the user names none: /var/lib/lanyard for root, otherwise
// $XDG_DATA_HOME/lanyard or ~/.local/share/lanyard.
func Default() (string, error) {
	return defaultFor(os.Geteuid(), os.Getenv, os.UserHomeDir)
}

func defaultFor(uid int, getenv func(string) string, home func() (string, error)) (string, error) {
	if uid == 0 {
		return "/var/lib/lanyard", nil
	}
	// The XDG base directory specification requires that relative paths are ignored.
	if xdg := getenv("XDG_DATA_HOME"); filepath.IsAbs(xdg) {
		return filepath.Join(xdg, "lanyard"), nil
	}
	dir, err := home()
	if err != nil || !filepath.IsAbs(dir) {
		return "", errors.New("no home directory is set: name a data directory with --data-dir")
	}
	return filepath.Join(dir, ".local", "share", "lanyard"), nil
}
