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

// checkHostPath holds a path of the machine to the type that the pod wants it to have, and makes it if the type says so.
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
		if err := orCreate(path, func() error { return os.MkdirAll(path, 0o755) }); err != nil {
			return err
		}
		return checkType(path, corev1.HostPathDirectory, "directory")
	case corev1.HostPathDirectory:
		return checkType(path, corev1.HostPathDirectory, "directory")
	case corev1.HostPathFileOrCreate:
		if err := orCreate(path, func() error { return createFile(path) }); err != nil {
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

func orCreate(path string, create func() error) error {
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

func checkType(path string, want corev1.HostPathType, words string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("hostPath %s doesn't exist", path)
	case err != nil:
		return fmt.Errorf("hostPath type check failed, %s is not a %s, unable to determine its type: %w", path, words, err)
	}
	if got := typeOf(info.Mode()); got != want {
		return fmt.Errorf("hostPath type check failed: %s is not a %s, it's a %s", path, words, got)
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
