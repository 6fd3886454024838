//go:build !windows

package etcd

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

const (
	// minFiles is what a member and the server beside it need with few clients. etcd refuses fewer than 150.
	minFiles = 256
	// mappedBytes is what the database is mapped with, its quota and a margin, and what is needed beside it.
	mappedBytes = quotaBytes + quotaBytes/8 + 1<<30
)

// checkLimits reports what the member will lack. Without it etcd gives up
// half-way, in words that do not tell a limit from damage.
func checkLimits() error {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil && files.Cur < minFiles {
		return fmt.Errorf("only %d files may be open at once, and %d are needed: %w", files.Cur, minFiles, unix.EMFILE)
	}
	size := int64(mappedBytes)
	if size > math.MaxInt {
		return nil // a processor of 32 bits cannot express it: etcd reports what it lacks
	}
	// A mapping that is not accessible takes nothing but address space.
	trial, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("%d GiB of address space are not to be had for the database: %w", mappedBytes>>30, err)
	}
	if err == nil {
		_ = unix.Munmap(trial)
	}
	return nil
}
