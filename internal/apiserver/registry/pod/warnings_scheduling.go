package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/podannotation"
)

// schedulingWarnings names the fields by which pod asks for a place, and which this server's scheduler does not consider. A
// pod that has its node, that another scheduler places, or that stands for a process draws none.
func schedulingWarnings(pod *corev1.Pod) []string {
	spec := &pod.Spec
	if spec.NodeName != "" || spec.SchedulerName != corev1.DefaultSchedulerName || podannotation.IsProcess(pod) {
		return nil
	}
	affinity := spec.Affinity
	if affinity == nil {
		affinity = &corev1.Affinity{}
	}
	p := field.NewPath("spec")
	within := p.Child("affinity")
	w := &warnings{pod: pod}
	for _, ignored := range []struct {
		field *field.Path
		set   bool
	}{
		{within.Child("nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"), affinity.NodeAffinity != nil && len(affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0},
		{within.Child("podAffinity"), affinity.PodAffinity != nil},
		{within.Child("podAntiAffinity"), affinity.PodAntiAffinity != nil},
		{p.Child("topologySpreadConstraints"), len(spec.TopologySpreadConstraints) > 0},
		{p.Child("priorityClassName"), spec.PriorityClassName != ""},
		{p.Child("schedulingGroup"), spec.SchedulingGroup != nil},
	} {
		if ignored.set {
			w.add(ignored.field, "the Lanyard scheduler does not consider it")
		}
	}
	return w.list
}
