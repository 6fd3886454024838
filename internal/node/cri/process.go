//go:build linux

package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// info is the part of verbose statuses that CRI does not define, and that containerd and CRI-O provide.
type info struct {
	Pid         int `json:"pid"`
	RuntimeSpec struct {
		Linux struct {
			Namespaces []struct {
				Type string `json:"type"`
				Path string `json:"path"`
			} `json:"namespaces"`
		} `json:"linux"`
	} `json:"runtimeSpec"`
}

func parseInfo(verbose map[string]string) (info, error) {
	var parsed info
	if err := json.Unmarshal([]byte(verbose["info"]), &parsed); err != nil {
		return info{}, fmt.Errorf("the container runtime's verbose status: %w", err)
	}
	return parsed, nil
}

// network returns the path of the network namespace that the sandbox joined, or else the path of its process's network namespace.
func (i info) network() string {
	for _, namespace := range i.RuntimeSpec.Linux.Namespaces {
		if namespace.Type == "network" && namespace.Path != "" {
			return namespace.Path
		}
	}
	if i.Pid > 0 {
		return fmt.Sprintf("/proc/%d/ns/net", i.Pid)
	}
	return ""
}

// NetworkNamespace returns the path of a sandbox's network namespace, or "" for the network namespace of the machine.
func (r *Runtime) NetworkNamespace(ctx context.Context, sandboxID string) (path string, err error) {
	if _, err := r.requireOwnSandbox(ctx, sandboxID); err != nil {
		return "", err
	}
	answer, err := r.sandboxStatus(ctx, sandboxID, true)
	if err != nil {
		return "", err
	}
	if isHostNetwork(answer.GetStatus()) {
		return "", nil
	}
	info, err := parseInfo(answer.GetInfo())
	if err != nil {
		return "", err
	}
	if path = info.network(); path == "" {
		return "", fmt.Errorf("the container runtime does not report the network namespace of sandbox %s", sandboxID)
	}
	return path, nil
}

// Signal sends a signal to a container's first process. It is an error if the container does not run.
func (r *Runtime) Signal(ctx context.Context, containerID string, signal syscall.Signal) error {
	pid, err := r.firstProcess(ctx, containerID)
	if err != nil {
		return err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("signal container %s: %w", containerID, err)
	}
	defer func() { _ = unix.Close(process) }()
	// The PID may have been reused before the process was opened. If it is the PID of the container now, it was so before too.
	if again, err := r.firstProcess(ctx, containerID); err != nil || again != pid {
		return fmt.Errorf("signal container %s: it has ended", containerID)
	}
	if err := unix.PidfdSendSignal(process, signal, nil, 0); err != nil {
		return fmt.Errorf("signal container %s: %w", containerID, err)
	}
	return nil
}

func (r *Runtime) firstProcess(ctx context.Context, containerID string) (pid int, err error) {
	answer, err := r.containerStatus(ctx, containerID, true)
	if err != nil {
		return 0, err
	}
	if answer.GetStatus().GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return 0, fmt.Errorf("container %s is not running", containerID)
	}
	info, err := parseInfo(answer.GetInfo())
	if err != nil {
		return 0, err
	}
	if info.Pid <= 1 {
		return 0, fmt.Errorf("the container runtime does not report the process of container %s", containerID)
	}
	return info.Pid, nil
}
