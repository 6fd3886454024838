//go:build linux

package cri

import (
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

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
