//go:build linux

package cri

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// CreateContainer creates a container, which StartContainer starts. The error may be a *ConfigError.
func (r *Runtime) CreateContainer(ctx context.Context, spec ContainerSpec) (id string, err error) {
	attempt, err := r.requireOwnSandbox(ctx, spec.SandboxID)
	if err != nil {
		return "", err
	}
	sandbox, err := r.sandboxConfig(ctx, spec.Pod, attempt)
	if err != nil {
		return "", err
	}
	config, err := r.containerConfig(ctx, spec)
	if err != nil {
		return "", err
	}
	if err := r.makeLogs(filepath.Join(sandbox.LogDirectory, spec.Container.Name)); err != nil {
		return "", fmt.Errorf("make the log directory of container %s: %w", spec.Container.Name, err)
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return "", err
	}
	id, err = rpc.CreateContainer(ctx, spec.SandboxID, config, sandbox)
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", spec.Container.Name, runtimeText(err))
	}
	r.owned.addContainer(id)
	return id, nil
}

// StartContainer starts a container that CreateContainer created.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	if err := r.requireOwnContainer(ctx, id); err != nil {
		return err
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return err
	}
	if err := rpc.StartContainer(ctx, id); err != nil {
		return fmt.Errorf("start container %s: %w", id, runtimeText(err))
	}
	return nil
}

// StopContainer ends a container, kills it after the grace period, and returns when it has ended. Without a grace period it
// kills the container at once. The period is rounded up to whole seconds. It is no error if the container has ended or does
// not exist.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	if err := r.requireOwnContainer(ctx, id); err != nil {
		return unlessNotFound(err)
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return err
	}
	if err := rpc.StopContainer(ctx, id, seconds(grace)); err != nil && !isNotFound(err) {
		return fmt.Errorf("stop container %s: %w", id, runtimeText(err))
	}
	return nil
}

// seconds returns d in whole seconds, rounded up, as CRI has them. 0 is no time.
func seconds(d time.Duration) int64 {
	return int64((max(d, 0) + time.Second - 1) / time.Second)
}

// RemoveContainer removes a container and its log.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	answer, err := r.containerStatus(ctx, id, false)
	if err != nil {
		return unlessNotFound(err)
	}
	log, noLog := r.belowLogs(answer.GetStatus().GetLogPath())
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return err
	}
	if err := rpc.RemoveContainer(ctx, id); err != nil && !isNotFound(err) {
		return fmt.Errorf("remove container %s: %w", id, runtimeText(err))
	}
	if noLog != nil {
		return nil
	}
	return r.inLogs(func(logs *os.Root) error { return removeLog(logs, log) })
}

// containerConfig returns the configuration of a container in CRI.
func (r *Runtime) containerConfig(ctx context.Context, spec ContainerSpec) (*runtimeapi.ContainerConfig, error) {
	container := spec.Container
	security, err := r.containerSecurity(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: container.Name, Attempt: spec.Attempt},
		Image:    &runtimeapi.ImageSpec{Image: spec.ImageID, UserSpecifiedImage: container.Image},
		Command:  container.Command, Args: container.Args, WorkingDir: container.WorkingDir,
		Envs: envs(spec.Env), Mounts: mounts(spec.Mounts), LogPath: logName(container.Name, spec.Attempt),
		Labels:      r.containerLabels(spec.Pod, container.Name),
		Annotations: map[string]string{imageAnnotation: container.Image},
		Stdin:       container.Stdin, StdinOnce: container.StdinOnce, Tty: container.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{Resources: resources(spec.Pod, container, r.config.Memory), SecurityContext: security},
	}, nil
}

func envs(all []corev1.EnvVar) []*runtimeapi.KeyValue {
	pairs := make([]*runtimeapi.KeyValue, 0, len(all))
	for _, env := range all {
		pairs = append(pairs, &runtimeapi.KeyValue{Key: env.Name, Value: []byte(env.Value)})
	}
	return pairs
}

func mounts(all []Mount) []*runtimeapi.Mount {
	mapped := make([]*runtimeapi.Mount, 0, len(all))
	for _, mount := range all {
		mapped = append(mapped, &runtimeapi.Mount{
			HostPath: mount.HostPath, ContainerPath: path.Join("/", mount.ContainerPath), Readonly: mount.ReadOnly, Propagation: propagation(mount.Propagation),
		})
	}
	return mapped
}

func propagation(mode *corev1.MountPropagationMode) runtimeapi.MountPropagation {
	switch ptr.Deref(mode, corev1.MountPropagationNone) {
	case corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}
