package keyfile

import "io/fs"

// OwnedByMe is true on Windows, where the user's own directories are closed
// to others by inherited access lists, not by their owner and mode.
func OwnedByMe(fs.FileInfo) (string, bool) { return "", true }

func ownedByRoot(fs.FileInfo) bool { return false }

// mode is one that is closed to others, for the same reason.
func mode(fs.FileInfo) fs.FileMode { return 0o600 }
