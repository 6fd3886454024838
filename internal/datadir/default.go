package datadir

import (
	"errors"
	"os"
	"path/filepath"
)

// Default is the directory used when none is named: /var/lib/lanyard for
// root, else $XDG_DATA_HOME/lanyard, else ~/.local/share/lanyard.
func Default() (string, error) {
	return defaultFor(os.Geteuid(), os.Getenv, os.UserHomeDir)
}

func defaultFor(uid int, getenv func(string) string, home func() (string, error)) (string, error) {
	if uid == 0 {
		return "/var/lib/lanyard", nil
	}
	// The XDG base directory specification tells to ignore relative paths.
	if xdg := getenv("XDG_DATA_HOME"); filepath.IsAbs(xdg) {
		return filepath.Join(xdg, "lanyard"), nil
	}
	dir, err := home()
	if err != nil || !filepath.IsAbs(dir) {
		return "", errors.New("no home directory is set: name a data directory with --data-dir")
	}
	return filepath.Join(dir, ".local", "share", "lanyard"), nil
}
