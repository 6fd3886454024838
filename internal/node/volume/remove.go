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
)

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
