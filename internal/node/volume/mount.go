//go:build linux

package volume

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/tokenvolume"
)

// tmpfs are the parameters of a file system in memory.
type tmpfs struct {
	flags uintptr
	mode  uint32
	gid   int64
	size  int64 // in bytes; 0 leaves it to the kernel
}

func (t tmpfs) options() string {
	options := fmt.Sprintf("mode=%o,gid=%d", t.mode, t.gid)
	if t.size > 0 {
		options += fmt.Sprintf(",size=%d", t.size)
	}
	return options
}

// mount makes a directory at path and mounts the file system there, unless a tmpfs is mounted there already. From Linux 6.4
// on, its content is never written to swap.
func (t tmpfs) mount(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	mounted, err := mountinfo.Mounted(path)
	if err != nil {
		return err
	}
	if mounted {
		return checkTmpfs(path)
	}
	err = unix.Mount("tmpfs", path, "tmpfs", t.flags, t.options()+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", path, "tmpfs", t.flags, t.options())
	}
	return os.NewSyscallError("mount tmpfs", err)
}

func isMounted(path string) bool {
	mounted, err := mountinfo.Mounted(path)
	return err == nil && mounted && checkTmpfs(path) == nil
}

func checkTmpfs(path string) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	if stat.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("the file system at %s is not a tmpfs", path)
	}
	return nil
}

// mountBacked mounts the file system of an API-backed volume. Its size allows for the old and the new content, which exist
// together while one replaces the other. It is mounted noexec unless the mode of a file makes it executable.
func mountBacked(path string, volume *corev1.Volume) error {
	t := tmpfs{flags: unix.MS_NOSUID | unix.MS_NODEV, mode: 0o755, size: 2 * int64(tokenvolume.SizeLimit(volume))}
	if !mayExecute(volume) {
		t.flags |= unix.MS_NOEXEC
	}
	return t.mount(path)
}

func mayExecute(volume *corev1.Volume) bool {
	found := false
	check := func(mode *int32) { found = found || mode != nil && *mode&0o111 != 0 }
	checkItems := func(items []corev1.KeyToPath) {
		for i := range items {
			check(items[i].Mode)
		}
	}
	fields := func(items []corev1.DownwardAPIVolumeFile) {
		for i := range items {
			check(items[i].Mode)
		}
	}
	switch {
	case volume.Secret != nil:
		check(volume.Secret.DefaultMode)
		checkItems(volume.Secret.Items)
	case volume.ConfigMap != nil:
		check(volume.ConfigMap.DefaultMode)
		checkItems(volume.ConfigMap.Items)
	case volume.DownwardAPI != nil:
		check(volume.DownwardAPI.DefaultMode)
		fields(volume.DownwardAPI.Items)
	case volume.Projected != nil:
		check(volume.Projected.DefaultMode)
		for _, source := range volume.Projected.Sources {
			switch {
			case source.Secret != nil:
				checkItems(source.Secret.Items)
			case source.ConfigMap != nil:
				checkItems(source.ConfigMap.Items)
			case source.DownwardAPI != nil:
				fields(source.DownwardAPI.Items)
			}
		}
	}
	return found
}

// remove unmounts all file systems in the pod's directory and removes the directory. It follows no link and enters no mount.
// If a file system cannot be unmounted, it removes nothing.
func (d podDir) remove() error {
	if info, err := os.Lstat(d.path()); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", d.path())
	}
	if err := d.unmount(); err != nil {
		return err
	}
	left, err := mountinfo.GetMounts(mountinfo.PrefixFilter(d.path()))
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%s is still mounted", left[0].Mountpoint)
	}
	root, err := os.OpenRoot(d.root)
	if err != nil {
		return err
	}
	return errors.Join(root.RemoveAll(d.name), root.Close())
}

// unmount unmounts the file systems in the pod's directory, the innermost first. It removes the content of API-backed
// volumes before, because the file system may stay mounted in another mount namespace.
func (d podDir) unmount() error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(d.path()))
	if err != nil {
		return err
	}
	slices.SortStableFunc(mounts, func(a, b *mountinfo.Info) int { return cmp.Compare(len(b.Mountpoint), len(a.Mountpoint)) })
	var faults []error
	for _, mount := range mounts {
		if mount.FSType == "tmpfs" && d.isBacked(mount.Mountpoint) {
			faults = append(faults, removeContents(mount.Mountpoint))
		}
		faults = append(faults, unmount(mount.Mountpoint))
	}
	return errors.Join(faults...)
}

func (d podDir) isBacked(mountpoint string) bool {
	rest, inside := strings.CutPrefix(mountpoint, d.volumes()+"/")
	k, name, _ := strings.Cut(rest, "/")
	return inside && !strings.Contains(name, "/") && slices.Contains([]kind{projected, secret, configMap, downwardAPI}, kind(k))
}

func removeContents(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	entries, err := fs.ReadDir(root.FS(), ".")
	faults := []error{err}
	for _, entry := range entries {
		faults = append(faults, root.RemoveAll(entry.Name()))
	}
	return errors.Join(faults...)
}

// unmount unmounts a file system. If the file system is in use, it is detached, and unmounted when it no longer is. It is no
// error if nothing is mounted at path.
func unmount(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &fs.PathError{Op: "unmount", Path: path, Err: err}
}
