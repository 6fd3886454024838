package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// mountPoint is a directory to mount at. While it is held nobody removes it: to remove the mount point of another
// namespace is to take that mount away.
type mountPoint struct {
	path string
	// made are the directories of the path that supervisors made, the deepest last; nil for one that is not theirs.
	made []string
	// held has a shared lock; nil for one that is in this namespace alone.
	held *os.File
}

// mark is the attribute of directories that a supervisor made. Only root can set or see it.
const mark = "trusted.lanyard.exec"

const (
	// pointMode keeps ordinary users from opening what supervisors make, and so from locking it: a lock of theirs could
	// keep every supervisor waiting.
	pointMode = 0o711
	// pointTries bounds how often others may remove a mount point between its making and its locking.
	pointTries = 100
	// lockPause is how long a supervisor needs to remove what it has locked.
	lockPause = 5 * time.Millisecond
)

func findMountPoint(path string) (*mountPoint, error) {
	for range pointTries {
		point, err := holdMountPoint(path)
		switch {
		case err == nil:
			return point, nil
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			time.Sleep(lockPause)
			continue
		case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
			return shadowPoint(path)
		}
		return nil, err
	}
	return unheldPoint(path)
}

// unheldPoint is for a directory that somebody else has locked for good. It can be used all the same if no supervisor
// made it, since then none removes it.
func unheldPoint(path string) (*mountPoint, error) {
	found, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	if len(marked(found)) > 0 {
		return nil, fmt.Errorf("%s goes away again and again, or is locked by another program", path)
	}
	return &mountPoint{path: found}, nil
}

func shadowPoint(path string) (*mountPoint, error) {
	if err := shadow(path); err != nil {
		return nil, err
	}
	found, err := filepath.EvalSymlinks(path)
	return &mountPoint{path: found}, err
}

// holdMountPoint makes what is missing of the path and locks its last directory. The lock counts if that is still where
// the path leads.
func holdMountPoint(path string) (*mountPoint, error) {
	if err := makeMarked(path); err != nil {
		return nil, err
	}
	found, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	held, err := os.Open(found)
	if err != nil {
		return nil, err
	}
	if err := lockThere(held, found); err != nil {
		_ = held.Close()
		return nil, err
	}
	return &mountPoint{path: found, made: marked(found), held: held}, nil
}

func lockThere(dir *os.File, path string) error {
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return err
	}
	return isThere(dir, path)
}

func isThere(dir *os.File, path string) error {
	opened, err := dir.Stat()
	if err != nil {
		return err
	}
	found, err := os.Stat(path)
	if err == nil && !os.SameFile(opened, found) {
		return fs.ErrNotExist
	}
	return err
}

// makeMarked makes the directories of path that are missing, with the mark on them.
func makeMarked(path string) error {
	base, rest, err := deepest(path)
	if err != nil || rest == "." {
		return err
	}
	var missing []string
	for ; rest != "."; rest = filepath.Dir(rest) {
		missing = append(missing, filepath.Join(base, rest))
	}
	for _, dir := range slices.Backward(missing) {
		err := os.Mkdir(dir, pointMode)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.Chmod(dir, pointMode); err != nil {
			return err
		}
		// Where the file system takes no mark, the directory stays.
		_ = unix.Setxattr(dir, mark, []byte("1"), 0)
	}
	return nil
}

// marked returns the last directories of path as far as they are marked, the deepest last.
func marked(path string) []string {
	var dirs []string
	for ; path != "/"; path = filepath.Dir(path) {
		if size, err := unix.Getxattr(path, mark, nil); err != nil || size == 0 {
			break
		}
		dirs = append(dirs, path)
	}
	slices.Reverse(dirs)
	return dirs
}

// release gives the mount point back, and removes what supervisors made of it if no other holds it. It must not be called
// from inside the namespace that mounted there.
func (p *mountPoint) release() {
	if p == nil || p.held == nil {
		return
	}
	defer func() { _ = p.held.Close() }()
	if len(p.made) == 0 || unix.Flock(int(p.held.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	if isThere(p.held, p.path) != nil {
		return
	}
	for _, dir := range slices.Backward(p.made) {
		if unix.Rmdir(dir) != nil {
			return
		}
	}
}
