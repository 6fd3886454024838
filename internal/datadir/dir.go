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

// ErrInUse reports that another process holds the directory.
var ErrInUse = errors.New("in use")

// owner is the content of the lock file: who holds the lock. It is only a
// message to the reader; what counts is the lock.
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

// writeOwner rewrites the lock file in place: replacing it would lose the lock.
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

// inUse says who holds the lock. Where a lock also keeps readers away, as on
// Windows, and while the owner rewrites the file, the owner is not known.
func inUse(dir, lockFile string) error {
	var o owner
	data, err := files.Read(lockFile, files.MaxText)
	if err != nil || json.Unmarshal(data, &o) != nil {
		o = owner{}
	}
	return hint.New(fmt.Errorf("%s is %w by %s", dir, ErrInUse, o),
		"use that instance with lanyard kubectl, stop it, or choose another directory with --data-dir")
}

// dataMark is a file that says that there is data in etcd's directory.
const dataMark = "has-data"

const dataMarkText = `There is data in the directory etcd beside this file. lanyard up does not start if that directory is gone while this file
is here. To start without data, remove this file too.
`

// CheckData reports data that was there and is gone, as when a backup of the
// keys alone was restored or a disk is not mounted. Starting without it would
// look like the deletion of everything.
func (d *Dir) CheckData() error {
	mark := d.join(dataMark)
	marked, err := exists(mark)
	if err != nil {
		return unreadable(mark, err)
	}
	stored, err := d.holdsData()
	if err != nil {
		return unreadable(d.EtcdDir(), err)
	}
	if !marked || stored {
		return nil
	}
	return files.Unusable(d.EtcdDir(), "is missing or empty, but it has held the data that belongs to the keys in "+d.path, nil,
		"restore it from a backup; to start without data, remove "+mark+" too")
}

// MarkData remembers that there is data, for CheckData.
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

// holdsData tells whether etcd has ever run on its directory. If there is a
// log but no database, or the other way round, it has.
func (d *Dir) holdsData() (bool, error) {
	files, err := os.ReadDir(d.join("etcd", "member", "wal"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(files) > 0 {
		return len(files) > 0, err
	}
	return exists(d.join("etcd", "member", "snap", "db"))
}

// Default is the directory used when none is named: /var/lib/lanyard for
// root, else $XDG_DATA_HOME/lanyard, else ~/.local/share/lanyard.
func Default() (string, error) {
	return defaultFor(os.Geteuid(), os.Getenv, os.UserHomeDir)
}

func defaultFor(uid int, getenv func(string) string, home func() (string, error)) (string, error) {
	if uid == 0 {
		return "/var/lib/lanyard", nil
	}
	// The XDG base directory specification tells to ignore relative paths.
	if xdg := getenv("XDG_DATA_HOME"); filepath.IsAbs(xdg) {
		return filepath.Join(xdg, "lanyard"), nil
	}
	dir, err := home()
	if err != nil || !filepath.IsAbs(dir) {
		return "", errors.New("no home directory is set: name a data directory with --data-dir")
	}
	return filepath.Join(dir, ".local", "share", "lanyard"), nil
}
