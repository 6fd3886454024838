//go:build !windows

package datadir

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ownedByMe tells whether this process's user owns the file, and who does.
func ownedByMe(info fs.FileInfo) (string, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "unknown", false
	}
	return fmt.Sprintf("uid %d", stat.Uid), int(stat.Uid) == os.Geteuid()
}
