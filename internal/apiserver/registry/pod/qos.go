package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// QOSClass computes the quality-of-service class from the CPU and memory in pod's spec; it ignores pod's status.
// Resources of the pod as a whole take the place of those of its containers.
//
// Module kubectl has a function for this too. It is not used, because everything that imports lanyardtest would then need
// that module.
func QOSClass(pod *corev1.Pod) corev1.PodQOSClass {
	anySet, allEqual := false, true
	for _, required := range requirements(pod) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := required.Requests[name], required.Limits[name]
			anySet = anySet || !request.IsZero() || !limit.IsZero()
			allEqual = allEqual && !limit.IsZero() && request.Equal(limit)
		}
	}
	switch {
	case !anySet:
		return corev1.PodQOSBestEffort
	case allEqual:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

func requirements(pod *corev1.Pod) []corev1.ResourceRequirements {
	if resource.IsPodLevelResourcesSet(pod) {
		return []corev1.ResourceRequirements{*pod.Spec.Resources}
	}
	var required []corev1.ResourceRequirements
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, container := range containers {
			required = append(required, container.Resources)
		}
	}
	return required
}
