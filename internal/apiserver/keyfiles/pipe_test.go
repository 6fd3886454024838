//go:build unix

package keyfiles_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestPipes reads a key from a named pipe, as shells make for <(command). It is read once. A file that becomes a pipe is not
// opened, since nobody may ever write to it.
func TestPipes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	data := privatePEM(t, 2)
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(pipe, data, 0o600) }()
	s.signing = pipe
	s.follow(nil)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	s.await("the key of the pipe", 2, 1)
	s.write(s.accepted, publicPEM(t, 0))
	s.await("a change of another file", 2, 0)

	if err := os.Remove(s.accepted); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(s.accepted, 0o600); err != nil {
		t.Fatal(err)
	}
	s.awaitStale("a file that became a pipe")
	if err := os.Remove(s.accepted); err != nil {
		t.Fatal(err)
	}
	s.write(s.accepted, publicPEM(t, 1))
	s.await("the file after the pipe", 2, 1)
	if stale := s.keys.Stale(); stale > time.Minute {
		t.Errorf("stale for %v", stale)
	}
}
