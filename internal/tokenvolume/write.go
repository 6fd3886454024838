package tokenvolume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"lanyard.dev/internal/files"
)

// File is a file in a volume.
type File struct {
	Data []byte
	// Mode has permission bits only. The umask has no effect on it.
	Mode fs.FileMode
	// UID and GID own the file. -1 does not change the owner.
	UID, GID int
}

// volumeDir are the methods of an *os.Root that Write uses. With an *os.Root, no link in the directory leads out of it.
type volumeDir interface {
	FS() fs.FS
	Lstat(name string) (fs.FileInfo, error)
	Mkdir(name string, perm fs.FileMode) error
	MkdirAll(name string, perm fs.FileMode) error
	OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error)
	Readlink(name string) (string, error)
	RemoveAll(name string) error
	Rename(oldname, newname string) error
	Symlink(oldname, newname string) error
}

var _ volumeDir = (*os.Root)(nil)

const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
	// reservedPrefix is the prefix of the names that a volume uses for itself.
	reservedPrefix = ".."
)

// Write replaces all files of the volume at root by files. Readers see all old files or all new ones. When Write returns nil,
// the old files have been removed. If it fails or is killed, the next Write completes or undoes its changes. It writes no
// file if content, modes and owners are already correct.
//
// A volume may have one writer at a time. CleanPath must accept the paths.
func Write(root *os.Root, files map[string]File) error { return write(root, files) }

func write(root volumeDir, files map[string]File) error {
	files, err := cleanFiles(files)
	if err != nil {
		return err
	}
	current := currentVersion(root)
	if current == "" || !versionHolds(root, current, files) {
		if current, err = writeVersion(root, files); err != nil {
			return err
		}
	}
	if err := linkNames(root, topLevelNames(files)); err != nil {
		return err
	}
	return removeStale(root, current, topLevelNames(files))
}

// writeVersion writes the files into a new directory, and replaces the link ..data atomically.
func writeVersion(root volumeDir, files map[string]File) (version string, err error) {
	if version, err = makeVersion(root); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = root.RemoveAll(version)
		}
	}()
	for name, file := range files {
		if err := create(root, version, name, file); err != nil {
			return "", fmt.Errorf("write %q: %w", name, err)
		}
	}
	return version, setDataLink(root, version)
}

func setDataLink(root volumeDir, version string) error {
	if err := root.RemoveAll(newDataLink); err != nil {
		return err
	}
	if err := root.Symlink(version, newDataLink); err != nil {
		return err
	}
	// Write never makes a directory of this name, and a rename cannot replace one.
	if info, err := root.Lstat(dataLink); err == nil && info.IsDir() {
		if err := root.RemoveAll(dataLink); err != nil {
			return err
		}
	}
	return root.Rename(newDataLink, dataLink)
}

// makeVersion returns the name of a new and empty directory.
func makeVersion(root volumeDir) (string, error) {
	for range 100 {
		name := fmt.Sprintf("%s.%09d", time.Now().UTC().Format(reservedPrefix+"2006_01_02_15_04_05"), rand.IntN(1e9))
		err := root.Mkdir(name, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		return name, makeReadable(root, name)
	}
	return "", errors.New("no name is left for a new version")
}

// create makes a file. Only this user can read it before its owner is set.
func create(root volumeDir, version, name string, file File) error {
	if err := makeParents(root, version, path.Dir(name)); err != nil {
		return err
	}
	f, err := root.OpenFile(path.Join(version, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(file.Data)
	if err == nil && (file.UID >= 0 || file.GID >= 0) {
		err = f.Chown(file.UID, file.GID)
	}
	if err == nil {
		err = f.Chmod(file.Mode)
	}
	return errors.Join(err, f.Close())
}

func makeParents(root volumeDir, version, dir string) error {
	if dir == "." {
		return nil
	}
	if err := root.MkdirAll(path.Join(version, dir), 0o755); err != nil {
		return err
	}
	for ; dir != "."; dir = path.Dir(dir) {
		if err := makeReadable(root, path.Join(version, dir)); err != nil {
			return err
		}
	}
	return nil
}

// makeReadable sets the mode of a directory, which the umask may have restricted.
func makeReadable(root volumeDir, dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := root.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(d.Chmod(0o755), d.Close())
}

// linkNames links each name in the volume's directory to the file or directory of that name in ..data.
func linkNames(root volumeDir, names map[string]bool) error {
	for name := range names {
		target := path.Join(dataLink, name)
		if found, err := root.Readlink(name); err == nil && found == target {
			continue
		}
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if err := root.Symlink(target, name); err != nil {
			return err
		}
	}
	return nil
}

// removeStale removes every other version, complete or not, and links to files that no longer exist.
func removeStale(root volumeDir, current string, names map[string]bool) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		stale := entry.Type()&fs.ModeSymlink != 0 && !names[name]
		if strings.HasPrefix(name, reservedPrefix) {
			stale = name != dataLink && name != current
		}
		if !stale {
			continue
		}
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// currentVersion returns the name of the directory to which ..data links, or "" if it does not link to a version.
func currentVersion(root volumeDir) string {
	target, err := root.Readlink(dataLink)
	if err != nil || target == dataLink || target == newDataLink || strings.ContainsAny(target, "/\\") ||
		!strings.HasPrefix(target, reservedPrefix) || len(target) <= len(reservedPrefix) {
		return ""
	}
	if info, err := root.Lstat(target); err != nil || !info.IsDir() {
		return ""
	}
	return target
}

// versionHolds reports whether a version has exactly these files, with their modes and owners.
func versionHolds(root volumeDir, version string, files map[string]File) bool {
	found := 0
	err := fs.WalkDir(root.FS(), version, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, expected := files[strings.TrimPrefix(name, version+"/")]
		if !expected || !entry.Type().IsRegular() || !isSameFile(root, name, file) {
			return fs.ErrNotExist
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}

func isSameFile(root volumeDir, name string, file File) bool {
	info, err := root.Lstat(path.Clean(name))
	if err != nil || info.Size() != int64(len(file.Data)) || !sameAccess(info, file) {
		return false
	}
	stored, err := root.FS().Open(name)
	if err != nil {
		return false
	}
	defer func() { _ = stored.Close() }()
	// The file may have grown since its size was read.
	data, err := files.ReadAll(stored, name, int64(len(file.Data)))
	return err == nil && bytes.Equal(data, file.Data)
}

// Limits of a path in a volume. They are Linux' own.
const (
	maxPath = 4096
	maxName = 255
)

// CleanPath returns the canonical form of a file's path in a volume, or an error if a file must not have that path. The result
// is relative, leads to a place below the volume's directory, and uses none of the names that the volume reserves.
func CleanPath(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("invalid path: must not be empty")
	case len(name) > maxPath:
		return "", fmt.Errorf("invalid path: must be less than or equal to %d characters", maxPath)
	case path.IsAbs(name):
		return "", fmt.Errorf("invalid path: must be relative path: %q", name)
	case slices.Contains(strings.Split(name, "/"), ".."):
		return "", fmt.Errorf("invalid path: must not contain '..': %q", name)
	case strings.Contains(name, "\x00"):
		return "", fmt.Errorf("invalid path: must not contain NUL: %q", name)
	}
	clean := path.Clean(name)
	switch {
	case strings.HasPrefix(clean, ".."):
		return "", fmt.Errorf("invalid path: must not start with '..': %q", name)
	case clean == "." || !fs.ValidPath(clean):
		return "", fmt.Errorf("invalid path: %q names no file", name)
	}
	for element := range strings.SplitSeq(clean, "/") {
		if len(element) > maxName {
			return "", fmt.Errorf("invalid path: each part must be less than or equal to %d characters", maxName)
		}
	}
	return clean, nil
}

// cleanFiles returns the files by their clean paths. Two files of one path, or a file with the path of a directory, are an
// error.
func cleanFiles(files map[string]File) (map[string]File, error) {
	clean := make(map[string]File, len(files))
	for name, file := range files {
		key, err := CleanPath(name)
		if err != nil {
			return nil, err
		}
		if _, taken := clean[key]; taken {
			return nil, fmt.Errorf("conflicting duplicate paths: %q", key)
		}
		if file.Mode&^fs.ModePerm != 0 {
			return nil, fmt.Errorf("file %q: mode %v is more than permissions", key, file.Mode)
		}
		clean[key] = file
	}
	for name := range clean {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, taken := clean[dir]; taken {
				return nil, fmt.Errorf("conflicting duplicate paths: %q is a file and a directory", dir)
			}
		}
	}
	return clean, nil
}

// topLevelNames returns the names of the files and directories that are seen in the volume's directory itself.
func topLevelNames(files map[string]File) map[string]bool {
	top := make(map[string]bool, len(files))
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		top[first] = true
	}
	return top
}
