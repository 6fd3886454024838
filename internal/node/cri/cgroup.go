//go:build linux

package cri

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The names of the cgroup drivers, as runtimes spell them.
const (
	cgroupfs = "cgroupfs"
	systemd  = "systemd"
)

// cgroupParent returns the cgroup in which the runtime creates the cgroups of all pods. One is enough: pods have no limits of
// their own, and the runtime removes what it created below the parent.
func (r *Runtime) cgroupParent(ctx context.Context) (string, error) {
	r.mu.Lock()
	known := r.parent
	r.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	driver, err := r.cgroupDriver(ctx)
	if err != nil {
		return "", err
	}
	parent := "/lanyard"
	if driver == systemd {
		parent = "lanyard.slice"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parent = &parent
	return parent, nil
}

// cgroupDriver returns the configured driver, or the one that the runtime reports. RuntimeConfig exists since containerd
// 2.0 and CRI-O 1.28. An older containerd reports its configuration with its status.
func (r *Runtime) cgroupDriver(ctx context.Context) (string, error) {
	if r.config.CgroupDriver != "" {
		return r.config.CgroupDriver, nil
	}
	query, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	query, rpc, _, err := r.connected(query)
	if err != nil {
		return "", err
	}
	answer, err := rpc.RuntimeConfig(query)
	switch {
	case err == nil && answer.GetLinux() != nil:
		if answer.GetLinux().GetCgroupDriver() == runtimeapi.CgroupDriver_SYSTEMD {
			return systemd, nil
		}
		return cgroupfs, nil
	case err != nil && status.Code(err) != codes.Unimplemented:
		return "", fmt.Errorf("query the cgroup driver of the container runtime: %w", runtimeText(err))
	}
	verbose, err := r.status(ctx, true)
	if err != nil {
		return "", err
	}
	return driverOf(verbose.GetInfo()["config"]), nil
}

// driverOf returns the cgroup driver in containerd's configuration. The default is cgroupfs.
func driverOf(config string) string {
	var parsed struct {
		SystemdCgroup bool `json:"systemdCgroup"`
		Containerd    struct {
			DefaultRuntimeName string `json:"defaultRuntimeName"`
			Runtimes           map[string]struct {
				Options struct {
					SystemdCgroup bool
				} `json:"options"`
			} `json:"runtimes"`
		} `json:"containerd"`
	}
	if json.Unmarshal([]byte(config), &parsed) != nil {
		return cgroupfs
	}
	if parsed.SystemdCgroup || parsed.Containerd.Runtimes[parsed.Containerd.DefaultRuntimeName].Options.SystemdCgroup {
		return systemd
	}
	return cgroupfs
}

const (
	quotaPeriod = 100_000 // microseconds
	minQuota    = 1_000   // the kernel refuses less
	minShares   = 2
	maxShares   = 262_144 // the kernel's
)

// Scores of the kernel's out-of-memory killer, from -1000 (never kill) to 1000 (kill first). They are the kubelet's.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

// resources returns a container's requests and limits in CRI. machineMemory is in bytes.
func resources(pod *corev1.Pod, container *corev1.Container, machineMemory int64) *runtimeapi.LinuxContainerResources {
	limits := container.Resources.Limits
	return &runtimeapi.LinuxContainerResources{
		CpuShares: shares(container), CpuPeriod: quotaPeriod, CpuQuota: quota(limits.Cpu().MilliValue()),
		MemoryLimitInBytes: limits.Memory().Value(), OomScoreAdj: oomScore(pod, container, machineMemory),
	}
}

// shares returns 1024 for each requested CPU. If there is a limit and no request, the limit is the request.
func shares(container *corev1.Container) int64 {
	request, set := container.Resources.Requests[corev1.ResourceCPU]
	if !set {
		request = container.Resources.Limits[corev1.ResourceCPU]
	}
	return min(max(request.MilliValue()*1024/1000, minShares), maxShares)
}

// quota returns the CPU time in each period, in microseconds. 0 is no limit.
func quota(milliCPU int64) int64 {
	if milliCPU == 0 {
		return 0
	}
	return max(milliCPU*quotaPeriod/1000, minQuota)
}

// oomScore returns a lower score for a container that requests much of the machine's memory, because it is expected to use
// it. The pod's priority has no influence: there are no priority classes that would restrict who may have one.
func oomScore(pod *corev1.Pod, container *corev1.Container, machineMemory int64) int64 {
	class := pod.Status.QOSClass // the authority sets it when the pod is created
	switch {
	case class == corev1.PodQOSGuaranteed:
		return oomGuaranteed
	case class == corev1.PodQOSBestEffort, machineMemory <= 0:
		return oomBestEffort
	}
	share := 1000 * float64(container.Resources.Requests.Memory().Value()) / float64(machineMemory)
	return min(max(1000-int64(share), 1000+oomGuaranteed), oomBestEffort-1)
}
