//go:build linux

package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// makeEmptyDir makes the directory of an emptyDir volume. It does not change a directory that exists already, because the pod
// may have changed it.
func (v *Volumes) makeEmptyDir(path string, pod *corev1.Pod, source *corev1.EmptyDirVolumeSource) error {
	if source == nil {
		source = &corev1.EmptyDirVolumeSource{}
	}
	group := int64(-1)
	if security := pod.Spec.SecurityContext; security != nil && security.FSGroup != nil {
		group = *security.FSGroup
	}
	switch source.Medium {
	case corev1.StorageMediumDefault:
		return makeDir(path, group)
	case corev1.StorageMediumMemory:
		t := tmpfs{mode: 0o777, size: v.memorySize(pod, source)}
		if group >= 0 {
			t.mode, t.gid = 0o2777, group
		}
		return t.mount(path)
	}
	return fmt.Errorf("unknown storage medium %q", source.Medium)
}

// memorySize returns the smallest limit of the volume: its own size limit, the memory limit of the pod, and the memory of the
// node.
func (v *Volumes) memorySize(pod *corev1.Pod, source *corev1.EmptyDirVolumeSource) int64 {
	var size int64
	limit := func(bytes int64) {
		if bytes > 0 && (size == 0 || bytes < size) {
			size = bytes
		}
	}
	limit(v.config.Allocatable.Memory().Value())
	limit(memoryOf(pod))
	if source.SizeLimit != nil {
		limit(source.SizeLimit.Value())
	}
	return size
}

// memoryOf returns the memory limit of all containers together, 0 if one has no limit.
func memoryOf(pod *corev1.Pod) int64 {
	var sum int64
	for i := range pod.Spec.Containers {
		limit := pod.Spec.Containers[i].Resources.Limits.Memory().Value()
		if limit == 0 {
			return 0
		}
		sum += limit
	}
	for i := range pod.Spec.InitContainers {
		sum = max(sum, pod.Spec.InitContainers[i].Resources.Limits.Memory().Value())
	}
	return sum
}

// makeDir makes a directory that all users may write to. The directory has its group and mode from the moment it exists.
func makeDir(path string, group int64) error {
	info, err := os.Lstat(path)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a directory", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Names of volumes have no dot, so this is not the directory of another volume.
	unfinished := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	if err := os.MkdirAll(unfinished, 0o700); err != nil {
		return err
	}
	mode := fs.FileMode(0o777)
	if group >= 0 {
		mode |= fs.ModeSetgid
		if err := os.Chown(unfinished, -1, int(group)); err != nil {
			return err
		}
	}
	if err := os.Chmod(unfinished, mode); err != nil {
		return err
	}
	return os.Rename(unfinished, path)
}

// checkHostPath returns an error if the path does not have the type that the source requires. It makes a missing directory or
// file if the type requires that.
func checkHostPath(source *corev1.HostPathVolumeSource) error {
	path := source.Path
	switch {
	case slices.Contains(strings.Split(path, "/"), ".."):
		return fmt.Errorf("invalid HostPath `%s`: must not contain '..'", path)
	case !filepath.IsAbs(path):
		return fmt.Errorf("invalid HostPath `%s`: must be an absolute path", path)
	case source.Type == nil:
		return nil
	}
	switch *source.Type {
	case corev1.HostPathUnset:
		return nil
	case corev1.HostPathDirectoryOrCreate:
		if err := createIfMissing(path, func() error { return os.MkdirAll(path, 0o755) }); err != nil {
			return err
		}
		return checkType(path, corev1.HostPathDirectory, "directory")
	case corev1.HostPathDirectory:
		return checkType(path, corev1.HostPathDirectory, "directory")
	case corev1.HostPathFileOrCreate:
		if err := createIfMissing(path, func() error { return createFile(path) }); err != nil {
			return err
		}
		return checkType(path, corev1.HostPathFile, "file")
	case corev1.HostPathFile:
		return checkType(path, corev1.HostPathFile, "file")
	case corev1.HostPathSocket:
		return checkType(path, corev1.HostPathSocket, "socket file")
	case corev1.HostPathCharDev:
		return checkType(path, corev1.HostPathCharDev, "character device")
	case corev1.HostPathBlockDev:
		return checkType(path, corev1.HostPathBlockDev, "block device")
	}
	return fmt.Errorf("%s is an invalid volume type", *source.Type)
}

func createIfMissing(path string, create func() error) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return create()
}

func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func checkType(path string, want corev1.HostPathType, description string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("hostPath %s doesn't exist", path)
	case err != nil:
		return fmt.Errorf("hostPath type check failed, %s is not a %s, unable to determine its type: %w", path, description, err)
	}
	if got := typeOf(info.Mode()); got != want {
		return fmt.Errorf("hostPath type check failed: %s is not a %s, it's a %s", path, description, got)
	}
	return nil
}

func typeOf(mode fs.FileMode) corev1.HostPathType {
	switch mode.Type() {
	case 0:
		return corev1.HostPathFile
	case fs.ModeDir:
		return corev1.HostPathDirectory
	case fs.ModeSocket:
		return corev1.HostPathSocket
	case fs.ModeDevice | fs.ModeCharDevice:
		return corev1.HostPathCharDev
	case fs.ModeDevice:
		return corev1.HostPathBlockDev
	}
	return corev1.HostPathType(mode.Type().String())
}
