package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/cri"
)

// The reasons of Kubernetes for a container that could not be started.
const (
	createContainerConfigError = "CreateContainerConfigError"
	createContainerError       = "CreateContainerError"
	runContainerError          = "RunContainerError"
)

// startAll starts the sandbox or the containers in the plan.
func (w *worker) startAll(ctx context.Context, s *situation, p *plan) {
	ctx, finish := w.workContext(ctx, s)
	defer finish()
	if !w.keepVolumesFresh(ctx, s) || p.sandbox == nil && len(p.start) == 0 || !w.prepare(ctx, s, p) {
		return
	}
	if !acquire(ctx, w.starts) {
		return
	}
	defer release(w.starts)
	if p.sandbox != nil {
		w.runSandbox(ctx, s, *p.sandbox)
		return
	}
	for i := range p.start {
		if ctx.Err() == nil {
			w.start(ctx, s, &p.start[i])
		}
	}
}

// workContext returns a context that ends when the pod is to end, or has been active for too long.
func (w *worker) workContext(ctx context.Context, s *situation) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	w.mu.Lock()
	w.cancelWork = cancel
	w.cancelWorkLocked()
	w.mu.Unlock()
	if at, ok := s.deadline(); ok {
		timer := w.Clock.NewTimer(at.Sub(s.now))
		go func() {
			defer timer.Stop()
			select {
			case <-timer.C():
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	return ctx, func() {
		cancel()
		w.mu.Lock()
		w.cancelWork = nil
		w.mu.Unlock()
	}
}

// keepVolumesFresh sets up the volumes of running containers again after the agent was started, and after the pod's labels
// or annotations have changed. It returns false if the volumes are not set up.
func (w *worker) keepVolumesFresh(ctx context.Context, s *situation) bool {
	if len(s.running()) == 0 {
		return true
	}
	if w.volumes != nil {
		if !sameMetadata(w.mounted, s.pod) {
			w.mount(ctx, s) // if this fails, the mounted volumes are used
		}
		return true
	}
	return w.mount(ctx, s)
}

func sameMetadata(a, b *corev1.Pod) bool {
	return maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
}

// prepare makes the pod's directory, pulls its images and sets up its volumes. It removes the containers whose image is not
// ready from the plan, and returns false if nothing can be started.
func (w *worker) prepare(ctx context.Context, s *situation, p *plan) bool {
	if err := w.files.prepare(w.uid); err != nil {
		w.mountFailed(s, err)
		return false
	}
	if w.volumes == nil {
		return w.ensureImages(ctx, s, containersOf(s.pod)) && w.mount(ctx, s)
	}
	// A container does not wait for the images of the others.
	var ready []start
	for _, next := range p.start {
		if w.ensureImage(ctx, s, next.container) {
			ready = append(ready, next)
		}
	}
	p.start = ready
	return p.sandbox != nil || len(ready) > 0
}

// mount sets up the volumes. It returns false if it failed, or is in its back-off.
func (w *worker) mount(ctx context.Context, s *situation) bool {
	if w.mountRetry.mustWait(s.now) {
		w.wakeAt(w.mountRetry.until)
		return false
	}
	paths, err := w.Volumes.SetUp(ctx, s.pod)
	if err != nil {
		if ctx.Err() == nil {
			w.mountFailed(s, err)
		}
		return false
	}
	w.mountRetry, w.mounted = retry{}, s.pod
	w.volumes = map[string]string{}
	maps.Copy(w.volumes, paths)
	return true
}

func (w *worker) mountFailed(s *situation, err error) {
	w.warning(s.pod, reasonFailedMount, "%s", err.Error())
	w.mountRetry.failed(w.Clock.Now(), mountBackoff, w.jitter())
	w.wakeAt(w.mountRetry.until)
}

func (w *worker) runSandbox(ctx context.Context, s *situation, attempt uint32) {
	if attempt > 0 {
		w.normal(s.pod, reasonSandboxChanged, "Pod sandbox changed, it will be killed and re-created.")
	}
	defer w.markStale()
	_, err := w.Runtime.RunSandbox(ctx, s.pod, attempt)
	w.metrics.done("run_sandbox", err)
	if err != nil {
		if ctx.Err() == nil {
			w.warning(s.pod, reasonFailedSandbox, "Failed to create pod sandbox: %v", err)
			w.sandbox.failed(w.Clock.Now(), runtimeBackoff, w.jitter())
		}
		return
	}
	w.sandbox = retry{}
}

// start creates and starts one container.
func (w *worker) start(ctx context.Context, s *situation, next *start) {
	defer w.markStale()
	name := next.container.Name
	reason, err := w.tryStart(ctx, s, next)
	w.metrics.done("start_container", err)
	if err != nil {
		if ctx.Err() == nil {
			w.startFailed(s, name, reason, err)
		}
		return
	}
	w.image(name).ready = false
	delete(w.waiting, name)
	delete(w.attempts, name)
	if next.isRestart {
		w.restarts[name] = w.restarts[name].next(next.ended, w.Clock.Now())
	}
}

func (w *worker) startFailed(s *situation, name, reason string, err error) {
	w.warningOf(s.pod, name, reasonFailed, "Error: %v", err)
	w.waiting[name] = corev1.ContainerStateWaiting{Reason: reason, Message: err.Error()}
	failed := w.attempts[name]
	failed.failed(w.Clock.Now(), runtimeBackoff, w.jitter())
	w.attempts[name] = failed
}

// tryStart creates and starts a container. With an error it returns the reason of the container's waiting state.
func (w *worker) tryStart(ctx context.Context, s *situation, next *start) (reason string, err error) {
	spec, err := w.containerSpec(ctx, s, next)
	if err != nil {
		return createContainerConfigError, err
	}
	id, err := w.Runtime.CreateContainer(ctx, spec)
	if _, ok := errors.AsType[*cri.ConfigError](err); ok {
		return createContainerConfigError, err
	}
	if err != nil {
		return createContainerError, err
	}
	w.normalOf(s.pod, next.container.Name, reasonCreated, "Container created")
	if err := w.Runtime.StartContainer(ctx, id); err != nil {
		return runContainerError, err
	}
	w.normalOf(s.pod, next.container.Name, reasonStarted, "Container started")
	return "", nil
}

func (w *worker) containerSpec(ctx context.Context, s *situation, next *start) (cri.ContainerSpec, error) {
	env := environment{
		objects: w.Objects, pod: s.withAddresses(w.HostIPs), container: next.container,
		allocatable: w.Allocatable, service: w.ServiceEnv,
	}
	variables, err := env.resolve(ctx)
	if err != nil {
		return cri.ContainerSpec{}, err
	}
	mounts, err := w.mounts(s, next)
	if err != nil {
		return cri.ContainerSpec{}, err
	}
	container := ptr.To(*next.container)
	if container.Command, err = env.expand(container.Command); err != nil {
		return cri.ContainerSpec{}, err
	}
	if container.Args, err = env.expand(container.Args); err != nil {
		return cri.ContainerSpec{}, err
	}
	return cri.ContainerSpec{
		Pod: s.pod, SandboxID: s.readySandbox().ID, Container: container, Attempt: next.attempt,
		ImageID: w.image(next.container.Name).id, Env: variables, Mounts: mounts,
	}, nil
}

// volumeMounts returns the mounts of a container's volumes. paths are the volumes' paths on the host, by name.
func volumeMounts(pod *corev1.Pod, c *corev1.Container, paths map[string]string) ([]cri.Mount, error) {
	var all []cri.Mount
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		host, ok := paths[m.Name]
		if !ok {
			return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, c.Name)
		}
		all = append(all, cri.Mount{
			HostPath: host, ContainerPath: path.Join("/", m.MountPath),
			ReadOnly: m.ReadOnly || isRendered(pod, m.Name), Propagation: m.MountPropagation,
		})
	}
	return all, nil
}

// isRendered reports whether the agent writes the volume's files. Containers cannot write to such a volume.
func isRendered(pod *corev1.Pod, volume string) bool {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Name == volume {
			return v.Projected != nil || v.Secret != nil || v.ConfigMap != nil || v.DownwardAPI != nil
		}
	}
	return false
}

// isMounted reports whether one of the mounts is at exactly this path.
func isMounted(mounts []cri.Mount, at string) bool {
	for _, m := range mounts {
		if m.ContainerPath == path.Clean(at) {
			return true
		}
	}
	return false
}

// mounts returns all mounts of a container: its volumes, the pod's /etc/hosts, and its termination log.
func (w *worker) mounts(s *situation, next *start) ([]cri.Mount, error) {
	all, err := volumeMounts(s.pod, next.container, w.volumes)
	if err != nil {
		return nil, err
	}
	if ips := s.podIPs(w.HostIPs); !isMounted(all, hostsPath) && (len(ips) > 0 || s.pod.Spec.HostNetwork) {
		content, err := hostsFile(s.pod, ips)
		if err != nil {
			return nil, err
		}
		file, err := w.files.writeHosts(s.pod.UID, content)
		if err != nil {
			return nil, err
		}
		all = append(all, cri.Mount{HostPath: file, ContainerPath: hostsPath})
	}
	if at := next.container.TerminationMessagePath; at != "" && !isMounted(all, at) {
		file, err := w.files.makeTerminationLog(s.pod.UID, next.container.Name, next.attempt)
		if err != nil {
			return nil, err
		}
		all = append(all, cri.Mount{HostPath: file, ContainerPath: path.Join("/", at)})
	}
	return all, nil
}
