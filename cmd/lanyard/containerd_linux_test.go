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

// TestContainerdWithoutSystemd starts containerd with the commands of docs/workloads.md and Debian's configuration, in a
// directory of the test.
func TestContainerdWithoutSystemd(t *testing.T) {
	t.Parallel()
	nodetest.Require(t)
	dir, err := os.MkdirTemp("", "ctrd-") // t.TempDir may be too long for a unix socket, whose path has at most 107 bytes
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
	t.Cleanup(func() { endProcess(t, filepath.Join(dir, "containerd.pid")) })
	if output, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	dump, err := exec.CommandContext(ctx, "containerd", "--config", config, "config", "dump").Output()
	if err != nil || !strings.Contains(string(dump), "restrict_oom_score_adj = true") || !strings.Contains(string(dump), "SystemdCgroup = false") {
		t.Errorf("containerd has the configuration %v\n%s", err, dump)
	}
}

// TestWalkWithContainerRuntime runs the blocks of docs/walk.md that need a container runtime, with a containerd of its own.
func TestWalkWithContainerRuntime(t *testing.T) {
	t.Parallel()
	containerd := nodetest.Start(t)
	text, err := readDocument("walk.md")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "walk-") // t.TempDir may be too long for a unix socket, whose path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	caches, err := checkout(dir)
	if err != nil {
		t.Fatal(err)
	}
	environment := append(caches, "HOME="+dir, "KUBECONFIG=", "LANYARD_RUNTIME_DIR="+filepath.Join(dir, "run"), "DIR="+filepath.Join(dir, "data"),
		"CONTAINERD_ADDRESS="+strings.TrimPrefix(containerd.Endpoint(), "unix://"))
	stop := upWithPods(t, dir, environment, containerd)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience) // Building the image takes long.
	defer cancel()
	all := blocks(text)
	for _, step := range [][]block{
		withCondition("", under("Before you start", all)),
		withCondition("", under("The token inside pods", all)),
		withCondition("containerd", under("With a container runtime", all)),
		withCondition("", blocks("```sh\nlanyard kubectl delete pod --all --now\n```")),
	} {
		if len(step) == 0 {
			t.Fatal("the walk has no such block")
		}
		if err := runWith(ctx, dir, environment, step); err != nil {
			t.Fatal(err)
		}
	}
	stop()
}

// upWithPods starts `lanyard up` with an agent that uses the containerd of the test. It returns a function that stops it.
func upWithPods(t *testing.T, dir string, environment []string, containerd *nodetest.Containerd) (stop func()) {
	t.Helper()
	log := filepath.Join(dir, "up.log")
	messages, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Close()
	a := &authority{ended: make(chan error, 1)}
	a.process = exec.Command("lanyard", "up", "--data-dir", filepath.Join(dir, "data"), "--secure-port", "0",
		"--container-runtime-endpoint", containerd.Endpoint())
	a.process.Stderr, a.process.Env = messages, append(os.Environ(), environment...)
	if err := a.process.Start(); err != nil {
		t.Fatal(err)
	}
	process := a.process.Process
	go func() { a.ended <- a.process.Wait() }()
	t.Cleanup(a.kill)
	if _, err := a.awaitBanner(log); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = process.Signal(syscall.SIGTERM)
		a.process = nil
		if err := <-a.ended; err != nil {
			t.Error(err)
		}
	}
}

// endProcess ends the process whose ID is in a file, and waits until it has ended.
func endProcess(t *testing.T, file string) {
	t.Helper()
	number, err := os.ReadFile(file)
	if err != nil {
		return // The process was not started.
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(number)))
	if err != nil || pid < 2 {
		t.Fatalf("%s contains %q", file, number)
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	if err := poll(func() (bool, error) { return ended(pid), nil }); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		t.Errorf("containerd did not end: %v", err)
	}
}

// ended reports whether a process does not exist any more, or is a zombie.
func ended(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// debianConfig is the configuration file of Debian's package, with all paths in one directory.
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
