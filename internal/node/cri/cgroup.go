//go:build linux

package cri

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
