//go:build !windows

package etcd

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

const (
	// minFiles is the number of open files that a member and the server beside it need for few clients. etcd refuses fewer than 150.
	minFiles = 256
	// mappedBytes is the address space for the database, which is its quota and a margin, and for everything else.
	mappedBytes = quotaBytes + quotaBytes/8 + 1<<30
)

// checkLimits reports resource limits that are too low for the member. Otherwise etcd fails later, with an error that looks
// like damage.
func checkLimits() error {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil && files.Cur < minFiles {
		return fmt.Errorf("only %d files may be open at once, and %d are needed: %w", files.Cur, minFiles, unix.EMFILE)
	}
	size := int64(mappedBytes)
	if size > math.MaxInt {
		return nil // a 32-bit processor: etcd itself reports missing address space
	}
	// An inaccessible mapping takes address space and nothing else.
	trial, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("%d GiB of address space are not available for the database: %w", mappedBytes>>30, err)
	}
	if err == nil {
		_ = unix.Munmap(trial)
	}
	return nil
}
