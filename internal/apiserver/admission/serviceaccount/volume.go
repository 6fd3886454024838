package serviceaccount

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/utils/ptr"
)

const (
	// mountPath is the directory of the token, the root certificate and the namespace in every container.
	mountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	// rootCAConfigMap is the ConfigMap with the root certificate.
	rootCAConfigMap = "kube-root-ca.crt"

	volumePrefix = "kube-api-access-"
	// tokenSeconds is Kubernetes' value, which agents recognize.
	tokenSeconds = 3607
)

func suffixed(prefix string) string { return names.SimpleNameGenerator.GenerateName(prefix) }

// mountToken mounts the token volume in every container that mounts nothing at mountPath. It adds the volume if a
// container mounts it and the pod has none.
func (p *Plugin) mountToken(pod *corev1.Pod) {
	name, exists := p.volumeName(pod)
	mount := corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: mountPath}
	used := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if mountsAt(&containers[i], mountPath) {
				continue
			}
			containers[i].VolumeMounts = append(containers[i].VolumeMounts, mount)
			used = true
		}
	}
	if used && !exists {
		pod.Spec.Volumes = append(pod.Spec.Volumes, tokenVolume(name))
	}
}

// volumeName returns the name of the token volume that the pod has, or a name for a new one.
func (p *Plugin) volumeName(pod *corev1.Pod) (name string, exists bool) {
	taken := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, volumePrefix) {
			return v.Name, true
		}
		taken[v.Name] = true
	}
	for name = p.randomly(volumePrefix); taken[name]; {
		name = p.randomly(volumePrefix)
	}
	return name, false
}

func mountsAt(c *corev1.Container, path string) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == path {
			return true
		}
	}
	return false
}

func tokenVolume(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](tokenSeconds)}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAConfigMap},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}}
}
