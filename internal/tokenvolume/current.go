package tokenvolume

import (
	"bytes"
	"io/fs"
	"path"
	"strings"
)

// currentVersion returns the directory that ..data points to, or nothing if that is no version.
func currentVersion(root tree) string {
	target, err := root.Readlink(dataLink)
	if err != nil || target == dataLink || target == newDataLink || strings.ContainsAny(target, "/\\") ||
		!strings.HasPrefix(target, reserved) || len(target) <= len(reserved) {
		return ""
	}
	if info, err := root.Lstat(target); err != nil || !info.IsDir() {
		return ""
	}
	return target
}

// holds reports whether a version has these files, with their modes and owners, and no others.
func holds(root tree, version string, files map[string]File) bool {
	found := 0
	err := fs.WalkDir(root.FS(), version, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, wanted := files[strings.TrimPrefix(name, version+"/")]
		if !wanted || !entry.Type().IsRegular() || !same(root, name, file) {
			return fs.ErrNotExist
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}

func same(root tree, name string, file File) bool {
	info, err := root.Lstat(path.Clean(name))
	if err != nil || info.Size() != int64(len(file.Data)) || !sameAccess(info, file) {
		return false
	}
	data, err := root.ReadFile(name)
	return err == nil && bytes.Equal(data, file.Data)
}
