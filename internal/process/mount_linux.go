package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tmpfsOptions: a volume holds some tokens and a CA bundle, twice while it is replaced.
	tmpfsOptions = "mode=0755,size=8m"
	harmless     = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
)

// volume is where the files are written.
type volume struct {
	// dir can be written to, although the command sees it read-only.
	dir *os.File
	// point keeps others from removing the mount point meanwhile.
	point *mountPoint
}

func (v *volume) close() {
	if v != nil {
		_ = v.dir.Close()
		v.point.release()
	}
}

// mountVolume mounts a tmpfs at the path in the caller's mount namespace, which is the calling thread's and must be a new
// one.
func mountVolume(path string) (*volume, error) {
	// Mounts of the machine go on appearing here, and none from here appear there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("make the mounts private: %w", err)
	}
	point, err := findMountPoint(path)
	if err != nil {
		return nil, err
	}
	dir, err := mountTmpfs(point.path)
	if err != nil {
		point.release()
		return nil, fmt.Errorf("mount a tmpfs at %s: %w", path, err)
	}
	return &volume{dir, point}, nil
}

// mountTmpfs returns the directory of the tmpfs as it was mounted first, and then covers that mount by one that is
// read-only. The file system is the same.
func mountTmpfs(path string) (*os.File, error) {
	err := unix.Mount("tmpfs", path, "tmpfs", harmless, tmpfsOptions+",noswap")
	if errors.Is(err, unix.EINVAL) {
		// Kernels before 6.4 do not know noswap, and user namespaces are not allowed it.
		err = unix.Mount("tmpfs", path, "tmpfs", harmless, tmpfsOptions)
	}
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	err = unix.Mount(path, path, "", unix.MS_BIND, "")
	if err == nil {
		err = unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|harmless, "")
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// original is where a shadow keeps the directory it stands for.
const original = ".lanyard-original"

// shadow mounts over the deepest directory above path that can be listed a copy in which path exists. A directory that
// cannot is one that supervisors of root made: it goes when the last of these ends, with whatever is mounted there.
func shadow(path string) error {
	base, rest, err := deepest(path)
	if err != nil {
		return err
	}
	for base != "/" && unix.Access(base, unix.R_OK) != nil {
		base, rest = filepath.Dir(base), filepath.Join(filepath.Base(base), rest)
	}
	if base == "/" {
		return &Error{Err: fmt.Errorf("%s cannot be made", path), Next: "make that directory, as root"}
	}
	if err := mountShadow(base, rest); err != nil {
		return fmt.Errorf("mount a copy of %s that holds %s: %w", base, rest, err)
	}
	return nil
}

// deepest splits a path into the deepest directory that exists, with no symbolic links in it, and what is missing.
func deepest(path string) (base, rest string, err error) {
	for base = path; ; base = filepath.Dir(base) {
		found, err := filepath.EvalSymlinks(base)
		if err == nil {
			rest, err := filepath.Rel(base, path)
			return found, rest, err
		}
		if !errors.Is(err, os.ErrNotExist) || base == "/" {
			return "", "", err
		}
	}
}

// stage is where a shadow is made before it is moved to its place. What it stands for must be reached meanwhile.
const stage = "/tmp"

func mountShadow(base, rest string) error {
	entries, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", stage, "tmpfs", harmless, tmpfsOptions); err != nil {
		return err
	}
	hidden := filepath.Join(stage, original)
	if err := bind(base, hidden); err != nil {
		return err
	}
	own, _, _ := strings.Cut(rest, "/")
	for _, entry := range entries {
		if entry.Name() == own {
			continue
		}
		if err := appear(entry, hidden, filepath.Join(stage, entry.Name())); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(stage, rest), 0o755); err != nil {
		return err
	}
	if err := unix.Mount(stage, base, "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	// What is written here would be lost silently.
	return unix.Mount("", base, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|harmless, "")
}

// appear lets an entry of the hidden directory be found under path. A directory is the same there; a file or socket may be
// replaced by its maker, which a link follows and a mount would not.
func appear(entry os.DirEntry, hidden, path string) error {
	from := filepath.Join(hidden, entry.Name())
	switch {
	case entry.IsDir():
		return bind(from, path)
	case entry.Type()&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, path)
	}
	return os.Symlink(filepath.Join(original, entry.Name()), path)
}

// bind makes path and lets it be the directory from, with all that is mounted there.
func bind(from, path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return unix.Mount(from, path, "", unix.MS_BIND|unix.MS_REC, "")
}

// refusal says why a namespace could not be had, as far as the kernel's settings tell.
func refusal(err error) error {
	reason := ""
	for path, forbids := range map[string]string{
		"/proc/sys/kernel/unprivileged_userns_clone":             "0",
		"/proc/sys/user/max_user_namespaces":                     "0",
		"/proc/sys/user/max_mnt_namespaces":                      "0",
		"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
	} {
		value, readErr := os.ReadFile(path)
		if readErr == nil && strings.TrimSpace(string(value)) == forbids {
			setting := strings.ReplaceAll(strings.TrimPrefix(path, "/proc/sys/"), "/", ".")
			reason = fmt.Sprintf(" (%s is %s)", setting, forbids)
		}
	}
	return &Error{
		Err:  fmt.Errorf("this machine does not permit a private mount namespace to user %d%s: %w", os.Geteuid(), reason, err),
		Next: "run it as root, or with --no-mount, which hands over a private directory and a kubeconfig instead",
	}
}

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
