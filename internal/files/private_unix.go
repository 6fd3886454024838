//go:build !windows

package files

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// OwnedByMe returns the owner of a file, such as "uid 0", and whether that is this process's user.
func OwnedByMe(info fs.FileInfo) (owner string, mine bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "unknown", false
	}
	return fmt.Sprintf("uid %d", stat.Uid), int(stat.Uid) == os.Geteuid()
}

func ownedByRoot(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0
}

func mode(info fs.FileInfo) fs.FileMode { return info.Mode().Perm() }
