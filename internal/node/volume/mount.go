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

// tmpfs is a file system in memory.
type tmpfs struct {
	flags uintptr
	mode  uint32
	gid   int64 // 0 is root's
	size  int64 // in bytes; 0 leaves it to the kernel
}

func (t tmpfs) options() string {
	options := fmt.Sprintf("mode=%o,gid=%d", t.mode, t.gid)
	if t.size > 0 {
		options += fmt.Sprintf(",size=%d", t.size)
	}
	return options
}

// mount mounts it at path, where it makes a directory, unless it is there already. What is in it is never swapped out
// where the kernel can promise that (6.4 and later).
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
		return fmt.Errorf("%s has another file system than tmpfs", path)
	}
	return nil
}

// mountBacked mounts the file system of an API-backed volume, with room for old and new content, which are there together
// while they are exchanged. Programs can be run from it only if one of its files may be.
func mountBacked(path string, volume *corev1.Volume) error {
	t := tmpfs{flags: unix.MS_NOSUID | unix.MS_NODEV, mode: 0o755, size: 2 * int64(tokenvolume.SizeLimit(volume))}
	if !mayExecute(volume) {
		t.flags |= unix.MS_NOEXEC
	}
	return t.mount(path)
}

func mayExecute(volume *corev1.Volume) bool {
	found := false
	look := func(mode *int32) { found = found || mode != nil && *mode&0o111 != 0 }
	keys := func(items []corev1.KeyToPath) {
		for i := range items {
			look(items[i].Mode)
		}
	}
	fields := func(items []corev1.DownwardAPIVolumeFile) {
		for i := range items {
			look(items[i].Mode)
		}
	}
	switch {
	case volume.Secret != nil:
		look(volume.Secret.DefaultMode)
		keys(volume.Secret.Items)
	case volume.ConfigMap != nil:
		look(volume.ConfigMap.DefaultMode)
		keys(volume.ConfigMap.Items)
	case volume.DownwardAPI != nil:
		look(volume.DownwardAPI.DefaultMode)
		fields(volume.DownwardAPI.Items)
	case volume.Projected != nil:
		look(volume.Projected.DefaultMode)
		for _, source := range volume.Projected.Sources {
			switch {
			case source.Secret != nil:
				keys(source.Secret.Items)
			case source.ConfigMap != nil:
				keys(source.ConfigMap.Items)
			case source.DownwardAPI != nil:
				fields(source.DownwardAPI.Items)
			}
		}
	}
	return found
}

// remove unmounts and removes all that is in the pod's directory, and the directory. It goes through no link and into no
// mount; where one cannot be unmounted, nothing is removed.
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

// unmount unmounts the innermost first. The content of API-backed volumes is removed before that, since a mount may live
// on in another mount namespace.
func (d podDir) unmount() error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(d.path()))
	if err != nil {
		return err
	}
	slices.SortStableFunc(mounts, func(a, b *mountinfo.Info) int { return cmp.Compare(len(b.Mountpoint), len(a.Mountpoint)) })
	var faults []error
	for _, mount := range mounts {
		if mount.FSType == "tmpfs" && d.isBacked(mount.Mountpoint) {
			faults = append(faults, empty(mount.Mountpoint))
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

func empty(dir string) error {
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

// unmount lets a mount that is in use go as soon as it is no longer. That is no mount any more is no error.
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
