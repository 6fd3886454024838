//go:build linux

package nodetest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestContainerd runs a container of the tool, kills and restarts containerd, and checks that nothing is left.
func TestContainerd(t *testing.T) {
	t.Parallel()
	named := Image{Name: "lanyard.test/named:1", Main: images + "tool", User: "somebody", Files: map[string]string{"/etc/passwd": "somebody:x:1234:1234::/:/bin/tool\n"}}
	var c *Containerd
	t.Run("life", func(t *testing.T) {
		c = Start(t, named)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		running := run(ctx, t, c, "one", Tool().Name)
		c.Kill(t)
		c.Restart(t)
		requireState(ctx, t, c, running, runtimeapi.ContainerState_CONTAINER_RUNNING)
		run(ctx, t, c, "two", named.Name)
		c.Kill(t) // the clean-up must work for a containerd that was killed
	})
	if c == nil {
		t.Skip("skipped above")
	}
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", c.dir, err)
	}
	if _, err := net.InterfaceByName(c.bridge); err == nil {
		t.Errorf("bridge %s is still there", c.bridge)
	}
	if shims := c.shims(); len(shims) > 0 {
		t.Errorf("shims %v still run", shims)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), c.dir) {
		t.Errorf("mounts are left, or are not known: %v", err)
	}
}

func run(ctx context.Context, t *testing.T, c *Containerd, name, image string) (id string) {
	t.Helper()
	client := runtimeapi.NewRuntimeServiceClient(c.conn)
	pod := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "test", Uid: name},
		LogDirectory: filepath.Join(c.Dir(), name), Linux: &runtimeapi.LinuxPodSandboxConfig{},
	}
	sandbox, err := client.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: pod})
	if err != nil {
		t.Fatalf("run sandbox: %v\n%s", err, c.logTail())
	}
	created, err := client.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: sandbox.GetPodSandboxId(), SandboxConfig: pod, Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: image},
			Args: []string{"sleep"}, LogPath: "log", Linux: &runtimeapi.LinuxContainerConfig{},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	id = created.GetContainerId()
	if _, err := client.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	return id
}

func requireState(ctx context.Context, t *testing.T, c *Containerd, id string, want runtimeapi.ContainerState) {
	t.Helper()
	status, err := runtimeapi.NewRuntimeServiceClient(c.conn).ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil || status.GetStatus().GetState() != want {
		t.Errorf("container %s: %v, want %v; %v", id, status.GetStatus().GetState(), want, err)
	}
}

// TestStartEnds checks that the start fails at once if containerd ends by itself, and that the log contains the reason.
func TestStartEnds(t *testing.T) {
	t.Parallel()
	Require(t)
	c := &Containerd{dir: t.TempDir()}
	if _, err := writeConfig(c.dir, pause().Name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "config.toml"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.conn, err = dial(c.socket()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.conn.Close() }()
	if err := c.launch(); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if err := c.awaitReady(); err == nil || time.Since(started) > patience/2 {
		t.Errorf("after %v: %v", time.Since(started), err)
	}
	if !strings.Contains(c.logTail(), "config.toml") {
		t.Errorf("the log's end is %q", c.logTail())
	}
}
