//go:build linux

package node

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/node/cri"
)

// version is the Node's kubelet version: the version of Kubernetes whose pods the agent runs.
const version = "v1.37.2+lanyard"

// containerRuntime is the part of the container runtime on which the Node's conditions depend.
type containerRuntime interface {
	Version(ctx context.Context) (name, version string, err error)
	Status(ctx context.Context) (cri.Status, error)
}

// observer determines the status of the node.
type observer struct {
	runtime   containerRuntime
	system    corev1.NodeSystemInfo
	rootDir   string
	name      string
	addresses []net.IP
	port      int32
	maxPods   int
	clock     clock.PassiveClock
}

// status implements observe.
func (o *observer) status(ctx context.Context, former *corev1.NodeStatus) corev1.NodeStatus {
	status := *former.DeepCopy()
	status.NodeInfo = o.info(ctx, former)
	status.Addresses = o.nodeAddresses()
	status.DaemonEndpoints.KubeletEndpoint.Port = o.port
	m, err := readMachine(o.rootDir)
	if err == nil {
		status.Capacity = m.capacity(o.maxPods)
		status.Allocatable = status.Capacity.DeepCopy()
	}
	for _, condition := range append(pressures(&m, err), o.ready(ctx, err)) {
		status.Conditions = o.setCondition(status.Conditions, condition)
	}
	return status
}

func (o *observer) info(ctx context.Context, former *corev1.NodeStatus) corev1.NodeSystemInfo {
	info := o.system
	info.KubeletVersion = version
	info.ContainerRuntimeVersion = former.NodeInfo.ContainerRuntimeVersion
	if name, version, err := o.runtime.Version(ctx); err == nil {
		info.ContainerRuntimeVersion = name + "://" + version
	}
	return info
}

func (o *observer) nodeAddresses() []corev1.NodeAddress {
	var all []corev1.NodeAddress
	for _, ip := range o.addresses {
		all = append(all, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	return append(all, corev1.NodeAddress{Type: corev1.NodeHostName, Address: o.name})
}

// ready returns the Ready condition: whether the node can run pods. machine is the error of reading the machine.
func (o *observer) ready(ctx context.Context, machine error) corev1.NodeCondition {
	not := func(message string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: message}
	}
	status, err := o.runtime.Status(ctx)
	switch {
	case err != nil:
		return not("container runtime is down: " + err.Error())
	case !status.RuntimeReady:
		return not("container runtime not ready: " + status.Message)
	case !status.NetworkReady:
		return not("container runtime network not ready: " + status.Message)
	case machine != nil:
		return not("cannot look at this machine: " + machine.Error())
	}
	return corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "the agent is ready to run pods"}
}

// pressures returns the conditions for a lack of memory, disk and process IDs. The agent evicts no pod because of them. err
// is the error of reading the machine.
func pressures(m *machine, err error) []corev1.NodeCondition {
	condition := func(kind corev1.NodeConditionType, low bool, what, noun string) corev1.NodeCondition {
		c := corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficient" + what, Message: "the node has enough " + noun}
		switch {
		case err != nil:
			c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "KubeletCannotTell", err.Error()
		case low:
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, "KubeletHasInsufficient"+what, "the node has too little "+noun
		}
		return c
	}
	return []corev1.NodeCondition{
		condition(corev1.NodeMemoryPressure, m.lowOnMemory(), "Memory", "memory"),
		condition(corev1.NodeDiskPressure, m.lowOnDisk(), "Disk", "disk space or inodes"),
		condition(corev1.NodePIDPressure, m.lowOnProcesses(), "PID", "room for processes"),
	}
}

// setCondition replaces the condition of c's type. It keeps the time of the last transition if the status is unchanged.
func (o *observer) setCondition(all []corev1.NodeCondition, c corev1.NodeCondition) []corev1.NodeCondition {
	now := metav1.NewTime(o.clock.Now())
	c.LastHeartbeatTime, c.LastTransitionTime = now, now
	i := slices.IndexFunc(all, func(old corev1.NodeCondition) bool { return old.Type == c.Type })
	if i < 0 {
		return append(all, c)
	}
	if all[i].Status == c.Status {
		c.LastTransitionTime = all[i].LastTransitionTime
	}
	all[i] = c
	return all
}

// machine is the state of the machine that the agent runs on.
type machine struct {
	memory, memoryAvailable  int64 // bytes
	disk, diskFree           uint64
	inodes, inodesFree       uint64
	processes, processesFree int64
}

// A machine that has less than this available reports pressure. The thresholds are kubelet's.
const (
	minMemory         = 100 << 20
	minDiskPercent    = 10
	minInodesPercent  = 5
	minProcessPercent = 5
)

// readMachine reads the state of memory and processes, and of the disk that dir is on.
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
	data, err := files.Read("/proc/meminfo", files.MaxText)
	if err != nil {
		return err
	}
	fields := parseMeminfo(data)
	m.memory, m.memoryAvailable = fields["MemTotal"], fields["MemAvailable"]
	if m.memory == 0 {
		return fmt.Errorf("/proc/meminfo has no MemTotal")
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
	most, err := files.Read("/proc/sys/kernel/pid_max", files.MaxText)
	if err != nil {
		return err
	}
	load, err := files.Read("/proc/loadavg", files.MaxText) // "0.1 0.2 0.3 RUNNING/ALL LAST"
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

func (m *machine) lowOnMemory() bool { return m.memoryAvailable < minMemory }

func (m *machine) lowOnDisk() bool {
	return m.diskFree*100 < m.disk*minDiskPercent || m.inodesFree*100 < m.inodes*minInodesPercent
}

func (m *machine) lowOnProcesses() bool { return m.processesFree*100 < m.processes*minProcessPercent }

// capacity returns the resources that all pods together can use.
func (m *machine) capacity(maxPods int) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(m.memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(m.disk), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(maxPods), resource.DecimalSI),
	}
}

// systemInfo returns the properties of the machine that do not change while it runs.
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

// firstLine returns the first line of a file, or "" if the file cannot be read: the line is only shown to users.
func firstLine(path string) string {
	data, err := files.Read(path, files.MaxText)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

func osImage() string {
	data, err := files.Read("/etc/os-release", files.MaxText)
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
