package podvalidation

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestWarnings(t *testing.T) {
	t.Parallel()
	vars := func(vars ...corev1.EnvVar) func(*corev1.Pod) { return main(func(c *corev1.Container) { c.Env = vars }) }
	for name, c := range map[string]struct {
		mutate func(*corev1.Pod)
		want   []string
	}{
		"none":         {},
		"same env":     {vars(corev1.EnvVar{Name: "A", Value: "1"}, corev1.EnvVar{Name: "A", Value: "2"}), []string{`spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`}},
		"env extended": {vars(corev1.EnvVar{Name: "A", Value: "1"}, corev1.EnvVar{Name: "A", Value: "$(A):2"}), nil},
		"annotation": {func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.SeccompPodAnnotationKey: "unconfined"} },
			[]string{`metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead`}},
		"volume":      {volume(corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{}}), []string{"spec.volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+"}},
		"pull secret": {spec(func(s *corev1.PodSpec) { s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "a"}, {Name: "a"}} }), []string{`spec.imagePullSecrets[1].name: duplicate name "a"`}},
		"fraction":    {limits(list("memory", "1500m"), nil), []string{`spec.containers[0].resources.limits[memory]: fractional byte value "1500m" is invalid, must be an integer`, `spec.containers[0].resources.requests[memory]: fractional byte value "1500m" is invalid, must be an integer`}},
		"over the token": {projected(token("t", nil), corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{Items: []corev1.KeyToPath{{Key: "k", Path: "t"}}}}),
			[]string{`spec.volumes[0].projected.sources.configMap[0]: has duplicated path with ServiceAccountToken "t"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, Warnings(defaulted(c.mutate))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
