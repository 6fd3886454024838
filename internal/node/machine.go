//go:build linux

package node

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// machine is what the agent reads of the machine it runs on.
type machine struct {
	memory, memoryAvailable  int64 // bytes
	disk, diskFree           uint64
	inodes, inodesFree       uint64
	processes, processesFree int64
}

// A machine that has less than this left reports pressure: kubelet's own thresholds.
const (
	leastMemory         = 100 << 20
	leastDiskPercent    = 10
	leastInodesPercent  = 5
	leastProcessPercent = 5
)

// readMachine looks at memory, processes, and the disk that dir is on.
func readMachine(dir string) (machine, error) {
	var m machine
	if err := m.readMemory(); err != nil {
		return m, err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return m, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	block := uint64(disk.Bsize)
	m.disk, m.diskFree, m.inodes, m.inodesFree = disk.Blocks*block, disk.Bavail*block, disk.Files, disk.Ffree
	return m, m.readProcesses()
}

func (m *machine) readMemory() error {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	fields := parseMeminfo(data)
	m.memory, m.memoryAvailable = fields["MemTotal"], fields["MemAvailable"]
	if m.memory == 0 {
		return fmt.Errorf("/proc/meminfo says nothing of MemTotal")
	}
	return nil
}

// parseMeminfo returns the values of /proc/meminfo in bytes.
func parseMeminfo(data []byte) map[string]int64 {
	values := map[string]int64{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		words := strings.Fields(rest)
		if !ok || len(words) != 2 || words[1] != "kB" {
			continue
		}
		if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
			values[name] = n << 10
		}
	}
	return values
}

func (m *machine) readProcesses() error {
	most, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return err
	}
	load, err := os.ReadFile("/proc/loadavg") // "0.1 0.2 0.3 RUNNING/ALL LAST"
	if err != nil {
		return err
	}
	if m.processes, err = strconv.ParseInt(strings.TrimSpace(string(most)), 10, 64); err != nil {
		return fmt.Errorf("/proc/sys/kernel/pid_max: %w", err)
	}
	words := strings.Fields(string(load))
	if len(words) < 4 {
		return fmt.Errorf("/proc/loadavg has %d fields", len(words))
	}
	_, all, _ := strings.Cut(words[3], "/")
	used, err := strconv.ParseInt(all, 10, 64)
	if err != nil {
		return fmt.Errorf("/proc/loadavg: %w", err)
	}
	m.processesFree = m.processes - used
	return nil
}

func (m *machine) lowOnMemory() bool { return m.memoryAvailable < leastMemory }

func (m *machine) lowOnDisk() bool {
	return m.diskFree*100 < m.disk*leastDiskPercent || m.inodesFree*100 < m.inodes*leastInodesPercent
}

func (m *machine) lowOnProcesses() bool { return m.processesFree*100 < m.processes*leastProcessPercent }

// capacity is what pods can have, all in all.
func (m *machine) capacity(maxPods int) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(m.memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(m.disk), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(maxPods), resource.DecimalSI),
	}
}

// systemInfo is what does not change while the machine runs.
func systemInfo() corev1.NodeSystemInfo {
	info := corev1.NodeSystemInfo{
		OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH, OSImage: osImage(),
		MachineID: firstLine("/etc/machine-id"), SystemUUID: firstLine("/sys/class/dmi/id/product_uuid"), BootID: firstLine("/proc/sys/kernel/random/boot_id"),
		KernelVersion: firstLine("/proc/sys/kernel/osrelease"),
	}
	if info.SystemUUID == "" {
		info.SystemUUID = info.MachineID
	}
	return info
}

// firstLine returns "" for a file that cannot be read: what it says is for people.
func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

func osImage() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(name, `"'`)
		}
	}
	return ""
}
