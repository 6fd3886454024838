package pod

import (
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/node/cri"
)

// volumeMounts are the volumes a container sees, at their paths on the host.
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

// isRendered says whether the agent writes the volume's files; then no container may.
func isRendered(pod *corev1.Pod, volume string) bool {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Name == volume {
			return v.Projected != nil || v.Secret != nil || v.ConfigMap != nil || v.DownwardAPI != nil
		}
	}
	return false
}

// isMounted says whether one of the mounts is at exactly this path.
func isMounted(mounts []cri.Mount, at string) bool {
	for _, m := range mounts {
		if m.ContainerPath == path.Clean(at) {
			return true
		}
	}
	return false
}

// mounts are all a container sees: its volumes, the pod's /etc/hosts, and the file for its last words.
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
		file, err := w.files.makeTermination(s.pod.UID, next.container.Name, next.attempt)
		if err != nil {
			return nil, err
		}
		all = append(all, cri.Mount{HostPath: file, ContainerPath: path.Join("/", at)})
	}
	return all, nil
}
