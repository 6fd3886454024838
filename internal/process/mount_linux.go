package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
