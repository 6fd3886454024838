package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// milliScale is the finest quantity the API stores.
const milliScale = -3

// roundUp brings each quantity to a whole number of milli-units.
func roundUp(list corev1.ResourceList) {
	for name, quantity := range list {
		quantity.RoundUp(milliScale)
		list[name] = quantity
	}
}

// requestsFromLimits requests what is limited where nothing is requested.
func requestsFromLimits(r *corev1.ResourceRequirements) {
	if r.Limits != nil && r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	fill(r.Requests, r.Limits, func(corev1.ResourceName) bool { return true })
}

// fill copies into list what it lacks of from, as far as want allows. A nil list must go with an empty from.
func fill(list, from corev1.ResourceList, want func(corev1.ResourceName) bool) {
	for name, quantity := range from {
		if _, set := list[name]; !set && want(name) {
			list[name] = quantity.DeepCopy()
		}
	}
}

// defaultPodResources completes spec.resources where its author set a part of it: what is missing follows from the
// containers, and then from the pod's own limits (KEP-2837). The containers' own defaults must be in place.
func defaultPodResources(pod *corev1.Pod) {
	r := pod.Spec.Resources
	if r == nil || len(r.Requests)+len(r.Limits) == 0 {
		return
	}
	roundUp(r.Limits)
	roundUp(r.Requests)
	limits, requests := nonNil(r.Limits), nonNil(r.Requests)

	containerLimits := resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{})
	fill(limits, containerLimits, isHugePage)
	if len(requests) > 0 {
		fill(limits, containerLimits, func(name corev1.ResourceName) bool {
			return isCompute(name) && everyContainerLimits(pod, name)
		})
	}
	if len(limits) > 0 {
		fill(requests, resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{}), isCompute)
		fill(requests, limits, resourcehelper.IsSupportedPodLevelResource)
	}
	r.Limits, r.Requests = orNil(limits), orNil(requests)
}

func everyContainerLimits(pod *corev1.Pod, name corev1.ResourceName) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if _, ok := list[i].Resources.Limits[name]; !ok {
				return false
			}
		}
	}
	return true
}

func nonNil(list corev1.ResourceList) corev1.ResourceList {
	if list == nil {
		return corev1.ResourceList{}
	}
	return list
}

func orNil(list corev1.ResourceList) corev1.ResourceList {
	if len(list) == 0 {
		return nil
	}
	return list
}

func isCompute(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory
}

func isHugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}
