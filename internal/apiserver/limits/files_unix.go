//go:build unix

package limits

import "golang.org/x/sys/unix"

// openFiles returns how many files the process may have open. Connections are files.
func openFiles() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return unlimited
	}
	return int(min(uint64(limit.Cur), unlimited))
}
