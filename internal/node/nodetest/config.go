//go:build linux

package nodetest

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// writeConfig writes the configuration of a containerd into its directory, and returns the name of its bridge.
func writeConfig(dir, sandboxImage string) (bridge string, err error) {
	for _, sub := range []string{"cni", "ipam", "opt", "test"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return "", err
		}
	}
	number, subnet, err := freeSubnet()
	if err != nil {
		return "", err
	}
	bridge = fmt.Sprintf("lt%08x", number)
	conflist := fmt.Sprintf(networkConfig, bridge, filepath.Join(dir, "ipam"), subnet)
	if err := os.WriteFile(filepath.Join(dir, "cni", "10.conflist"), []byte(conflist), 0o600); err != nil {
		return "", err
	}
	config := fmt.Sprintf(daemonConfig, dir, sandboxImage, snapshotter(dir), pluginDir())
	return bridge, os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600)
}

// daemonConfig keeps everything below one directory. Plugins that are not needed are disabled, so that containerd starts fast.
const daemonConfig = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "%[1]s/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[2]s"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  netns_mounts_under_state_dir = true
  # Where root lacks CAP_SYS_RESOURCE no process can be made less likely to be killed than this one.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "%[3]s"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "%[1]s/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[4]s"
    conf_dir = "%[1]s/cni"
`

// networkConfig connects pods with this machine, and with no other machine.
const networkConfig = `{
  "cniVersion": "0.4.0",
  "name": "%[1]s",
  "plugins": [
    {
      "type": "bridge", "bridge": "%[1]s", "isGateway": true, "ipMasq": false,
      "ipam": {
        "type": "host-local", "dataDir": "%[2]s",
        "ranges": [[{"subnet": "%[3]s"}]], "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}
`

// freeSubnet returns a random number, and a subnet of 1,000 addresses, derived from it, that does not overlap with a network of
// this machine.
func freeSubnet() (uint32, netip.Prefix, error) {
	taken, err := prefixes()
	if err != nil {
		return 0, netip.Prefix{}, err
	}
	for range 1000 {
		var random [4]byte
		if _, err := rand.Read(random[:]); err != nil {
			return 0, netip.Prefix{}, err
		}
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + random[0]%127, random[1] &^ 3, 0}), 22)
		if !overlaps(subnet, taken) {
			return binary.BigEndian.Uint32(random[:]), subnet, nil
		}
	}
	return 0, netip.Prefix{}, fmt.Errorf("no subnet of 10.128.0.0/9 is free")
}

func overlaps(subnet netip.Prefix, taken []netip.Prefix) bool {
	for _, other := range taken {
		if subnet.Overlaps(other) {
			return true
		}
	}
	return false
}

// prefixes returns the networks of this machine's interfaces.
func prefixes() ([]netip.Prefix, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var all []netip.Prefix
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil {
			all = append(all, prefix.Masked())
		}
	}
	return all, nil
}

// snapshotter returns overlayfs if the directory's file system can be the lower layer of an overlay, and otherwise native,
// which copies files.
func snapshotter(dir string) string {
	probe, err := os.MkdirTemp(dir, "overlay-")
	if err != nil {
		return "native"
	}
	defer func() { _ = os.RemoveAll(probe) }()
	for _, sub := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(probe, sub), 0o700); err != nil {
			return "native"
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", probe)
	merged := filepath.Join(probe, "merged")
	if unix.Mount("overlay", merged, "overlay", 0, options) != nil {
		return "native"
	}
	_ = unix.Unmount(merged, 0)
	return "overlayfs"
}

// required is the environment variable that, with the value "required", makes tests fail that cannot run containerd.
const required = "LANYARD_TEST_CONTAINERD"

// Require skips the test if containerd cannot run here, or fails it if the environment requires containerd.
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

// Missing returns the reason why containerd cannot run here, or "" if it can.
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

// pluginDir returns the directory with the required CNI plugins, or "" if there is none.
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
