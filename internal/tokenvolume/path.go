package tokenvolume

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

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
