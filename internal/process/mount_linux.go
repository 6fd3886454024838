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

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
)

const (
	// tmpfsOptions limit the size of a volume, which holds some tokens and a CA bundle, twice while it is replaced.
	tmpfsOptions = "mode=0755,size=8m"
	mountFlags   = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
)

// volume is a mounted tmpfs.
type volume struct {
	// dir is the writable directory, which the command sees read-only.
	dir *os.File
	// point keeps other supervisors from removing the mount point. It may be nil.
	point *mountPoint
}

func (v *volume) close() {
	if v != nil {
		_ = v.dir.Close()
		v.point.release()
	}
}

// mountVolume mounts a tmpfs at path in the mount namespace of the calling thread, which must be a new one.
func mountVolume(path string) (*volume, error) {
	// Mounts of the machine still appear in this namespace; mounts of this namespace do not appear outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("separate the mounts from the mounts of the machine: %w", err)
	}
	point, err := acquireMountPoint(path)
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

// mountTmpfs mounts a tmpfs at path and returns its writable directory. It then covers the mount by a read-only bind mount of
// the same file system.
func mountTmpfs(path string) (*os.File, error) {
	err := unix.Mount("tmpfs", path, "tmpfs", mountFlags, tmpfsOptions+",noswap")
	if errors.Is(err, unix.EINVAL) {
		// Kernels before 6.4 do not have noswap, and it is not permitted in user namespaces.
		err = unix.Mount("tmpfs", path, "tmpfs", mountFlags, tmpfsOptions)
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
		err = unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|mountFlags, "")
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// originalName is the entry of a copy under which the original directory is mounted.
const originalName = ".lanyard-original"

// mountCopyWith mounts a copy of a directory over the directory itself. In the copy, path exists. It uses the deepest directory
// above path that this user can list. Supervisors of root create directories that other users cannot list; they must not be
// used, because the last of these supervisors removes them together with anything mounted there.
func mountCopyWith(path string) error {
	base, rest, err := splitExisting(path)
	if err != nil {
		return err
	}
	for base != "/" && unix.Access(base, unix.R_OK) != nil {
		base, rest = filepath.Dir(base), filepath.Join(filepath.Base(base), rest)
	}
	if base == "/" {
		return hint.New(fmt.Errorf("%s cannot be created", path), "create that directory as root")
	}
	if err := mountCopy(base, rest); err != nil {
		return fmt.Errorf("mount a copy of %s that contains %s: %w", base, rest, err)
	}
	return nil
}

// splitExisting splits path into its deepest existing directory, with symbolic links resolved, and the rest.
func splitExisting(path string) (base, rest string, err error) {
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

// stagingDir is where a copy is built. The copy moves to its place when it is complete, since its original must be reachable
// until then.
const stagingDir = "/tmp"

func mountCopy(base, rest string) error {
	entries, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", stagingDir, "tmpfs", mountFlags, tmpfsOptions); err != nil {
		return err
	}
	original := filepath.Join(stagingDir, originalName)
	if err := bindMount(base, original); err != nil {
		return err
	}
	created, _, _ := strings.Cut(rest, "/")
	for _, entry := range entries {
		if entry.Name() == created {
			continue
		}
		if err := copyEntry(entry, original, filepath.Join(stagingDir, entry.Name())); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(stagingDir, rest), 0o755); err != nil {
		return err
	}
	if err := unix.Mount(stagingDir, base, "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	// Read-only, because the machine would not see new entries of the copy.
	return unix.Mount("", base, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|mountFlags, "")
}

// copyEntry makes an entry of the original directory available under path: a directory by a bind mount, another entry by a
// symbolic link. A link still leads to the right file when a program replaces the file or socket; a bind mount would not.
func copyEntry(entry os.DirEntry, original, path string) error {
	from := filepath.Join(original, entry.Name())
	switch {
	case entry.IsDir():
		return bindMount(from, path)
	case entry.Type()&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, path)
	}
	return os.Symlink(filepath.Join(originalName, entry.Name()), path)
}

// bindMount creates path and mounts the directory from there, with everything below it.
func bindMount(from, path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return unix.Mount(from, path, "", unix.MS_BIND|unix.MS_REC, "")
}

// namespaceRefused returns the error of a machine that refuses a namespace. It contains the kernel setting that is the reason,
// if it finds one.
func namespaceRefused(err error) error {
	reason := ""
	for path, forbids := range map[string]string{
		"/proc/sys/kernel/unprivileged_userns_clone":             "0",
		"/proc/sys/user/max_user_namespaces":                     "0",
		"/proc/sys/user/max_mnt_namespaces":                      "0",
		"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
	} {
		value, readErr := files.Read(path, files.MaxText)
		if readErr == nil && strings.TrimSpace(string(value)) == forbids {
			setting := strings.ReplaceAll(strings.TrimPrefix(path, "/proc/sys/"), "/", ".")
			reason = fmt.Sprintf(" (%s is %s)", setting, forbids)
		}
	}
	return hint.New(
		fmt.Errorf("this machine does not permit a private mount namespace to user %d%s: %w", os.Geteuid(), reason, err),
		"run it as root, or with --no-mount, which provides a private directory and a kubeconfig instead",
	)
}

// mountPoint is a directory to mount at. While a supervisor holds a lock on it, no other removes it. To remove the mount point
// of another namespace would also remove the mount.
type mountPoint struct {
	path string
	// created are the directories of path that supervisors created, the deepest last.
	created []string
	// locked has a shared lock. It is nil if no other namespace can have the mount point.
	locked *os.File
}

// createdAttribute is the extended attribute of directories that a supervisor created. Only root can set or see it.
const createdAttribute = "trusted.lanyard.exec"

const (
	// mountPointMode keeps other users from opening, and so from locking, the directories that a supervisor of root creates.
	// Their lock could block all supervisors.
	mountPointMode = 0o711
	// mountPointAttempts bounds how often others may remove a mount point between its creation and its locking.
	mountPointAttempts = 100
	// lockPause is the time that a supervisor needs to remove a directory that it has locked.
	lockPause = 5 * time.Millisecond
)

// acquireMountPoint creates missing directories of path and returns the mount point. If this user cannot create them, it mounts
// a copy of a parent directory that contains them.
func acquireMountPoint(path string) (*mountPoint, error) {
	for range mountPointAttempts {
		point, err := lockMountPoint(path)
		switch {
		case err == nil:
			return point, nil
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			time.Sleep(lockPause)
			continue
		case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
			return mountPointInCopy(path)
		}
		return nil, err
	}
	return unlockedMountPoint(path)
}

// unlockedMountPoint returns a directory that another program keeps locked. It can be used without a lock if no supervisor
// created it, since then none removes it.
func unlockedMountPoint(path string) (*mountPoint, error) {
	found, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	if len(createdDirectories(found)) > 0 {
		return nil, fmt.Errorf("%s disappears repeatedly, or is locked by another program", path)
	}
	return &mountPoint{path: found}, nil
}

func mountPointInCopy(path string) (*mountPoint, error) {
	if err := mountCopyWith(path); err != nil {
		return nil, err
	}
	found, err := filepath.EvalSymlinks(path)
	return &mountPoint{path: found}, err
}

// lockMountPoint creates the missing directories of path and locks the last one. It returns fs.ErrNotExist if path leads to
// another directory afterwards.
func lockMountPoint(path string) (*mountPoint, error) {
	if err := createMissing(path); err != nil {
		return nil, err
	}
	found, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	locked, err := os.Open(found)
	if err != nil {
		return nil, err
	}
	if err := lockDirectory(locked, found); err != nil {
		_ = locked.Close()
		return nil, err
	}
	return &mountPoint{path: found, created: createdDirectories(found), locked: locked}, nil
}

func lockDirectory(dir *os.File, path string) error {
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return err
	}
	return checkSameDirectory(dir, path)
}

func checkSameDirectory(dir *os.File, path string) error {
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

// createMissing creates and marks the missing directories of path.
func createMissing(path string) error {
	base, rest, err := splitExisting(path)
	if err != nil || rest == "." {
		return err
	}
	var missing []string
	for ; rest != "."; rest = filepath.Dir(rest) {
		missing = append(missing, filepath.Join(base, rest))
	}
	for _, dir := range slices.Backward(missing) {
		err := os.Mkdir(dir, mountPointMode)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.Chmod(dir, mountPointMode); err != nil {
			return err
		}
		// If the file system does not support the attribute, the directory is not removed later.
		_ = unix.Setxattr(dir, createdAttribute, []byte("1"), 0)
	}
	return nil
}

// createdDirectories returns path and its parents up to the first one that no supervisor created, the deepest last.
func createdDirectories(path string) []string {
	var dirs []string
	for ; path != "/"; path = filepath.Dir(path) {
		if size, err := unix.Getxattr(path, createdAttribute, nil); err != nil || size == 0 {
			break
		}
		dirs = append(dirs, path)
	}
	slices.Reverse(dirs)
	return dirs
}

// release unlocks the mount point. If no other supervisor holds it, it removes the directories that supervisors created. It
// must not be called inside the namespace that mounted there.
func (p *mountPoint) release() {
	if p == nil || p.locked == nil {
		return
	}
	defer func() { _ = p.locked.Close() }()
	if len(p.created) == 0 || unix.Flock(int(p.locked.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	if checkSameDirectory(p.locked, p.path) != nil {
		return
	}
	for _, dir := range slices.Backward(p.created) {
		if unix.Rmdir(dir) != nil {
			return
		}
	}
}
