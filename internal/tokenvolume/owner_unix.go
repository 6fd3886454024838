//go:build unix

package tokenvolume

import (
	"io/fs"
	"syscall"
)

// sameAccess reports whether a file has the mode and the owner that it should have.
func sameAccess(info fs.FileInfo, file File) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().Perm() == file.Mode &&
		(file.UID < 0 || stat.Uid == uint32(file.UID)) && (file.GID < 0 || stat.Gid == uint32(file.GID))
}
