package files

import "io/fs"

// OwnedByMe returns true. On Windows inherited access lists, not owner and mode, keep other users out of a user's own
// directories.
func OwnedByMe(fs.FileInfo) (owner string, mine bool) { return "", true }

func ownedByRoot(fs.FileInfo) bool { return false }

// mode returns a mode without access for other users, for the same reason.
func mode(fs.FileInfo) fs.FileMode { return 0o600 }
