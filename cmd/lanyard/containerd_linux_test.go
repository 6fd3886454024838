package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"lanyard.dev/internal/node/nodetest"
)

// TestContainerdWithoutSystemd starts containerd as docs/workloads.md says, with Debian's configuration moved to a directory
// of the test.
func TestContainerdWithoutSystemd(t *testing.T) {
	t.Parallel()
	nodetest.Require(t)
	dir, err := os.MkdirTemp("", "ctrd-") // not t.TempDir: a unix socket's path has a limit of 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "workloads.md"))
	if err != nil {
		t.Fatal(err)
	}
	config, socket := filepath.Join(dir, "config.toml"), filepath.Join(dir, "c.sock")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(debianConfig, "DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", shellBlocks(string(text), "Without systemd"))
	shell.Dir, shell.Env = dir, append(os.Environ(), "CONFIG="+config, "CONTAINERD_ADDRESS="+socket)
	t.Cleanup(func() { endStarted(t, filepath.Join(dir, "containerd.pid")) })
	if output, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	dump, err := exec.CommandContext(ctx, "containerd", "--config", config, "config", "dump").Output()
	if err != nil || !strings.Contains(string(dump), "restrict_oom_score_adj = true") || !strings.Contains(string(dump), "SystemdCgroup = false") {
		t.Errorf("containerd reads %v\n%s", err, dump)
	}
}

// endStarted ends the process whose number is in a file, and waits for that.
func endStarted(t *testing.T, file string) {
	t.Helper()
	number, err := os.ReadFile(file)
	if err != nil {
		return // it was not started
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(number)))
	if err != nil || pid < 2 {
		t.Fatalf("%s holds %q", file, number)
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	if err := poll(func() (bool, error) { return ended(pid), nil }); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		t.Errorf("containerd does not end: %v", err)
	}
}

// ended tells whether a process is gone, or waits for a parent that does not look after it.
func ended(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// debianConfig is the file of Debian's package, with everything in one directory.
const debianConfig = `version = 2
root = "DIR/root"
state = "DIR/state"
[grpc]
  address = "DIR/c.sock"
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "DIR/cni"
  [plugins."io.containerd.internal.v1.opt"]
    path = "DIR/opt"
`
