//go:build unix

package limits

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestMaxConnections is not parallel, because it lowers the limit of the process.
func TestMaxConnections(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	lower := before
	lower.Cur = 200
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	got := MaxConnections()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if got != 100 {
		t.Errorf("%d connections with 200 files, want 100", got)
	}
}
