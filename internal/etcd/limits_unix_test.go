//go:build !windows

package etcd

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	for limit, want := range map[string]string{
		"-n 128":     "more open files",
		"-v 6000000": "more memory", // kilobytes
	} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "etcd")
			child := exec.CommandContext(t.Context(), "/bin/sh", "-c", "ulimit "+limit+` && exec "$0"`, os.Args[0])
			child.Env = append(os.Environ(), limitEnv+"="+dir)
			out, err := child.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if !strings.Contains(string(out), want) || !strings.Contains(string(out), "the data is not damaged") {
				t.Errorf("got %q, want %q", out, want)
			}
			if _, err := os.Stat(filepath.Join(dir, "member")); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("files of a member: %v, want none", err)
			}
		})
	}
}
