package podvalidation

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/podannotation"
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

// TestSchedulingWarnings sets each field of a placement that has no effect, and those that have one.
func TestSchedulingWarnings(t *testing.T) {
	t.Parallel()
	term := corev1.PodAffinityTerm{TopologyKey: "zone"}
	preferred := []corev1.PreferredSchedulingTerm{{Weight: 1}}
	affinity := func(a corev1.Affinity) func(*corev1.PodSpec) { return func(s *corev1.PodSpec) { s.Affinity = &a } }
	apart := affinity(corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}})
	const why = ": the Lanyard scheduler does not consider it"
	for name, c := range map[string]struct {
		set  func(*corev1.PodSpec)
		want string // the field, or none
	}{
		"none": {func(*corev1.PodSpec) {}, ""},
		"what is considered": {func(s *corev1.PodSpec) {
			s.NodeSelector, s.Tolerations = map[string]string{"a": "b"}, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}
			s.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/gate"}}
		}, ""},
		"preferred nodes":   {affinity(corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: preferred}}), "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"},
		"beside pods":       {affinity(corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}), "spec.affinity.podAffinity"},
		"apart":             {apart, "spec.affinity.podAntiAffinity"},
		"spread":            {func(s *corev1.PodSpec) { s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{}} }, "spec.topologySpreadConstraints"},
		"priority":          {func(s *corev1.PodSpec) { s.PriorityClassName = "high" }, "spec.priorityClassName"},
		"group":             {func(s *corev1.PodSpec) { s.SchedulingGroup = &corev1.PodSchedulingGroup{} }, "spec.schedulingGroup"},
		"on a node":         {func(s *corev1.PodSpec) { apart(s); s.NodeName = "n" }, ""},
		"another scheduler": {func(s *corev1.PodSpec) { apart(s); s.SchedulerName = "other" }, ""},
	} {
		var want []string
		if c.want != "" {
			want = []string{c.want + why}
		}
		if diff := cmp.Diff(want, SchedulingWarnings(defaulted(spec(c.set)))); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
	process := defaulted(spec(apart))
	process.Annotations = map[string]string{podannotation.Process: "true"}
	if got := SchedulingWarnings(process); got != nil {
		t.Errorf("a process: %q", got)
	}
}
