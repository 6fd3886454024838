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
)

// File is what a volume holds under one path.
type File struct {
	Data []byte
	// Mode has permission bits only. It is set whatever the umask is.
	Mode fs.FileMode
	// UID and GID own the file; -1 leaves what the file system gives.
	UID, GID int
}

// tree is what Write needs of an *os.Root: nothing in the directory can lead out of it.
type tree interface {
	FS() fs.FS
	Lstat(name string) (fs.FileInfo, error)
	Mkdir(name string, perm fs.FileMode) error
	MkdirAll(name string, perm fs.FileMode) error
	OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error)
	ReadFile(name string) ([]byte, error)
	Readlink(name string) (string, error)
	Remove(name string) error
	RemoveAll(name string) error
	Rename(oldname, newname string) error
	Symlink(oldname, newname string) error
}

var _ tree = (*os.Root)(nil)

const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
	// reserved is how the names begin that a volume keeps for itself.
	reserved = ".."
)

// Write makes files, and nothing else, what the volume at root shows. Readers see all old files or all new ones. Once it
// returns nil, the old ones exist no more; where it fails or is killed, the next Write completes or undoes what it did.
// Nothing is written where content, modes and owners are what they should be.
//
// A volume may have one writer at a time. Paths are as CleanPath wants them.
func Write(root *os.Root, files map[string]File) error { return write(root, files) }

func write(root tree, files map[string]File) error {
	files, err := cleanFiles(files)
	if err != nil {
		return err
	}
	current := currentVersion(root)
	if current == "" || !holds(root, current, files) {
		if current, err = replace(root, files); err != nil {
			return err
		}
	}
	if err := link(root, topLevel(files)); err != nil {
		return err
	}
	return sweep(root, current, topLevel(files))
}

// replace makes a new version and lets ..data point to it, in one step.
func replace(root tree, files map[string]File) (version string, err error) {
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
	return version, point(root, version)
}

func point(root tree, version string) error {
	if err := root.RemoveAll(newDataLink); err != nil {
		return err
	}
	if err := root.Symlink(version, newDataLink); err != nil {
		return err
	}
	// A directory in the link's place is none of Write's, and a rename cannot replace it.
	if info, err := root.Lstat(dataLink); err == nil && info.IsDir() {
		if err := root.RemoveAll(dataLink); err != nil {
			return err
		}
	}
	return root.Rename(newDataLink, dataLink)
}

// makeVersion returns the name of a new and empty directory.
func makeVersion(root tree) (string, error) {
	for range 100 {
		name := fmt.Sprintf("%s.%09d", time.Now().UTC().Format(reserved+"2006_01_02_15_04_05"), rand.IntN(1e9))
		err := root.Mkdir(name, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		return name, openUp(root, name)
	}
	return "", errors.New("no name is left for a new version")
}

// create makes a file that nobody but this process can read until its owner is set.
func create(root tree, version, name string, file File) error {
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

func makeParents(root tree, version, dir string) error {
	if dir == "." {
		return nil
	}
	if err := root.MkdirAll(path.Join(version, dir), 0o755); err != nil {
		return err
	}
	for ; dir != "."; dir = path.Dir(dir) {
		if err := openUp(root, path.Join(version, dir)); err != nil {
			return err
		}
	}
	return nil
}

// openUp gives a directory the mode that the umask may have narrowed.
func openUp(root tree, dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := root.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(d.Chmod(0o755), d.Close())
}

// link lets each name in the volume's directory point into ..data.
func link(root tree, names map[string]bool) error {
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

// sweep removes every other version, finished or not, and links to what is no more.
func sweep(root tree, current string, names map[string]bool) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		stale := entry.Type()&fs.ModeSymlink != 0 && !names[name]
		if strings.HasPrefix(name, reserved) {
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

// Limits of a path in a volume. They are Linux' own.
const (
	maxPath = 4096
	maxName = 255
)

// CleanPath returns a path of a file in a volume in its one spelling, or says why no file can have it. What it returns is
// relative, stays below the volume's directory, and takes none of the names that the volume itself needs.
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

// cleanFiles returns the files under clean names, each with nothing in its way.
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

// topLevel returns what of the files is seen in the volume's directory itself.
func topLevel(files map[string]File) map[string]bool {
	top := make(map[string]bool, len(files))
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		top[first] = true
	}
	return top
}
