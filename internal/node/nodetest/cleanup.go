//go:build linux

package nodetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// end removes everything. The test fails if containerd did not remove something by itself.
func (c *Containerd) end(t testing.TB) {
	t.Helper()
	defer func() { _ = os.RemoveAll(c.dir) }()
	if c.conn == nil {
		return
	}
	if c.PID() == 0 {
		c.Restart(t) // only containerd can end the containers of a containerd that was killed
	}
	if err := c.removeAll(); err != nil {
		t.Errorf("clean up: %v\n%s", err, c.logTail())
	}
	_ = c.conn.Close()
	c.stop(t, syscall.SIGTERM)
	for _, leak := range c.leaks() {
		t.Errorf("left behind and removed: %s", leak)
	}
}

// removeAll stops and removes every sandbox with its containers.
func (c *Containerd) removeAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	runtime := runtimeapi.NewRuntimeServiceClient(c.conn)
	all, err := runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	for _, sandbox := range all.GetItems() {
		_, stop := runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox.GetId()})
		_, remove := runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox.GetId()})
		err = errors.Join(err, stop, remove)
	}
	return err
}

// leaks removes everything that is left, and returns a description of each thing.
func (c *Containerd) leaks() []string {
	found := slices.Concat(c.leakedProcesses(), c.leakedMounts())
	if err := removeBridge(c.bridge); err != nil {
		found = append(found, fmt.Sprintf("bridge %s: %v", c.bridge, err))
	}
	return found
}

// leakedProcesses kills the shims that are left, which have the socket of their containerd in their command line. A shim gets
// time to end by itself.
func (c *Containerd) leakedProcesses() []string {
	deadline := time.Now().Add(patience / 6)
	shims := c.shims()
	for len(shims) > 0 && time.Now().Before(deadline) {
		time.Sleep(pollPeriod)
		shims = c.shims()
	}
	var found []string
	for _, pid := range shims {
		held := childrenOf(pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		// A containerd that is killed may forget a shim that it was starting or ending. Such a shim has no program, but only a
		// runc that waits to start one. It is not a leak of the test.
		held = slices.DeleteFunc(held, func(command string) bool { return c.killed.Load() && command == "runc init" })
		if len(held) > 0 || !c.killed.Load() {
			found = append(found, fmt.Sprintf("shim %d, with %q", pid, held))
		}
	}
	return found
}

// childrenOf returns the command lines of a process's children. The children of a shim are containers.
func childrenOf(parent int) []string {
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	var found []string
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(status, fmt.Appendf(nil, "\nPPid:\t%d\n", parent)) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		found = append(found, strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " ")))
	}
	return found
}

func (c *Containerd) shims() []int {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	var found []int
	for _, file := range files {
		command, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(command, []byte("\x00-address\x00"+c.socket()+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

func (c *Containerd) leakedMounts() []string {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(c.dir))
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, mount := range slices.Backward(mounts) {
		if !strings.HasPrefix(mount.Mountpoint, c.dir+"/") {
			continue
		}
		_ = unix.Unmount(mount.Mountpoint, unix.MNT_DETACH)
		if !c.killed.Load() || !c.isForgotten(mount.Mountpoint) {
			found = append(found, "mount "+mount.Mountpoint)
		}
	}
	return found
}

// isForgotten reports whether a mount is a network namespace. Containerd makes it before it records the sandbox. If it is
// killed between these two steps, it no longer knows the namespace after a restart.
func (c *Containerd) isForgotten(mount string) bool {
	return strings.HasPrefix(mount, filepath.Join(c.dir, "state", "io.containerd.grpc.v1.cri", "netns")+"/")
}

// removeBridge removes the bridge, if a pod has run. No CNI plugin does that, so the bridge is not a leak.
func removeBridge(name string) error {
	if _, err := net.InterfaceByName(name); err != nil {
		return nil
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(0) // without IFF_UP: the kernel removes a bridge only if it is down
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return err
	}
	return unix.IoctlIfreq(socket, unix.SIOCBRDELBR, request)
}
