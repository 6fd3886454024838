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

// The drivers of cgroups, as runtimes call them.
const (
	cgroupfs = "cgroupfs"
	systemd  = "systemd"
)

// cgroupParent is where the runtime is to put the pods. It is one for all: a pod has no limits of its own, and what the
// runtime makes below it, it also removes.
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

// cgroupDriver is the configured one, else what the runtime says. RuntimeConfig came with containerd 2.0 and CRI-O 1.28;
// an older containerd tells its configuration with its status.
func (r *Runtime) cgroupDriver(ctx context.Context) (string, error) {
	if r.config.CgroupDriver != "" {
		return r.config.CgroupDriver, nil
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	asking, rpc, _, err := r.connected(asking)
	if err != nil {
		return "", err
	}
	answer, err := rpc.RuntimeConfig(asking)
	switch {
	case err == nil && answer.GetLinux() != nil:
		if answer.GetLinux().GetCgroupDriver() == runtimeapi.CgroupDriver_SYSTEMD {
			return systemd, nil
		}
		return cgroupfs, nil
	case err != nil && status.Code(err) != codes.Unimplemented:
		return "", fmt.Errorf("ask the container runtime for its cgroup driver: %w", said(err))
	}
	verbose, err := r.status(ctx, true)
	if err != nil {
		return "", err
	}
	return driverOf(verbose.GetInfo()["config"]), nil
}

// driverOf reads containerd's configuration; what it does not say is its default, cgroupfs.
func driverOf(config string) string {
	var told struct {
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
	if json.Unmarshal([]byte(config), &told) != nil {
		return cgroupfs
	}
	if told.SystemdCgroup || told.Containerd.Runtimes[told.Containerd.DefaultRuntimeName].Options.SystemdCgroup {
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

// The kernel's preference for what to kill when memory ends, from -1000 (never) to 1000 (first), as the kubelet gives it.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

// resources says a container's requests and limits; machineMemory is in bytes.
func resources(pod *corev1.Pod, container *corev1.Container, machineMemory int64) *runtimeapi.LinuxContainerResources {
	limits := container.Resources.Limits
	return &runtimeapi.LinuxContainerResources{
		CpuShares: shares(container), CpuPeriod: quotaPeriod, CpuQuota: quota(limits.Cpu().MilliValue()),
		MemoryLimitInBytes: limits.Memory().Value(), OomScoreAdj: oomScore(pod, container, machineMemory),
	}
}

// shares are 1024 for each requested CPU. A limit is a request where there is no request.
func shares(container *corev1.Container) int64 {
	request, asked := container.Resources.Requests[corev1.ResourceCPU]
	if !asked {
		request = container.Resources.Limits[corev1.ResourceCPU]
	}
	return min(max(request.MilliValue()*1024/1000, minShares), maxShares)
}

// quota is of each period; 0 is no limit.
func quota(milliCPU int64) int64 {
	if milliCPU == 0 {
		return 0
	}
	return max(milliCPU*quotaPeriod/1000, minQuota)
}

// oomScore spares those who asked for much of the memory and so are expected to use it. A priority buys nothing: there are no
// priority classes here that would say who may have it.
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
