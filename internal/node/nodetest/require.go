//go:build linux

package nodetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// required in the environment, with the value "required", makes a missing containerd a failure of the test.
const required = "LANYARD_TEST_CONTAINERD"

// Require skips the test where no containerd can be run, and fails it where the environment says that one can.
func Require(t testing.TB) {
	t.Helper()
	missing := Missing()
	switch {
	case missing == "":
	case os.Getenv(required) == "required":
		t.Fatalf("%s=required, but %s", required, missing)
	default:
		t.Skipf("needs a container runtime: %s", missing)
	}
}

// Missing says what keeps a containerd from running here; "" is nothing.
func Missing() string {
	if os.Geteuid() != 0 {
		return "only root may run containerd"
	}
	var absent []string
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "go"} {
		if _, err := exec.LookPath(name); err != nil {
			absent = append(absent, name)
		}
	}
	if len(absent) > 0 {
		return fmt.Sprintf("%s is not in PATH", strings.Join(absent, ", "))
	}
	if pluginDir() == "" {
		return "the CNI plugins bridge, host-local, loopback and portmap are neither in " + strings.Join(pluginDirs(), " nor in ")
	}
	return ""
}

func pluginDirs() []string { return []string{"/usr/lib/cni", "/opt/cni/bin"} }

// pluginDir is the directory that has the CNI plugins needed; "" where none does.
func pluginDir() string {
	for _, dir := range pluginDirs() {
		all := true
		for _, name := range []string{"bridge", "host-local", "loopback", "portmap"} {
			info, err := os.Stat(filepath.Join(dir, name))
			all = all && err == nil && info.Mode().IsRegular()
		}
		if all {
			return dir
		}
	}
	return ""
}
