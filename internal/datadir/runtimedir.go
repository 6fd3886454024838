package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"lanyard.dev/internal/files"
)

// runtimeDirEnv overrides where running instances are noted.
const runtimeDirEnv = "LANYARD_RUNTIME_DIR"

// runtimeDir is where the instances of this user are noted: it must not
// outlive a boot, and others must not be able to write to it.
func runtimeDir() string {
	return runtimeDirFor(os.Geteuid(), os.Getenv, os.TempDir(), runtime.GOOS)
}

func runtimeDirFor(uid int, getenv func(string) string, temporary, system string) string {
	if dir := getenv(runtimeDirEnv); dir != "" {
		return dir
	}
	if uid == 0 && system == "linux" {
		return "/run/lanyard"
	}
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lanyard")
	}
	return filepath.Join(temporary, fmt.Sprintf("lanyard-%d", uid))
}

// createRuntimeDir makes the directory, or takes an existing one that is safe.
func createRuntimeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return files.Unusable(dir, "cannot be created", err, "set "+runtimeDirEnv+" to a directory of yours")
	}
	_, err := trusted(dir)
	return err
}

// trusted tells whether dir exists, and refuses one that another user could
// have put there: a record in it decides which server kubectl talks to.
func trusted(dir string) (bool, error) {
	info, err := os.Lstat(dir)
	// What this user may not look at holds nothing of this user's. It may be named by the environment of another, as after
	// su.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, files.Unusable(dir, "cannot be read", err, "set "+runtimeDirEnv+" to a directory of yours")
	}
	owner, mine := files.OwnedByMe(info)
	open := runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0
	problem := ""
	switch {
	case !info.IsDir():
		problem = "is not a directory"
	case !mine:
		problem = fmt.Sprintf("belongs to another user (%s)", owner)
	case open:
		problem = fmt.Sprintf("may be written by other users (mode %04o)", info.Mode().Perm())
	}
	if problem == "" {
		return true, nil
	}
	return false, files.Unusable(dir, problem, nil, "remove it, or set "+runtimeDirEnv+" to a directory of yours")
}
