//go:build !windows

package keyfile

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// OwnedByMe tells whether this process's user owns the file, and who does.
func OwnedByMe(info fs.FileInfo) (string, bool) {
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
