package tokenvolume

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// PodField returns the value of a fieldRef, in a volume or in the environment. All labels, or all annotations, are one line
// each, sorted by key. The pod must have the status that is to be shown.
func PodField(pod *corev1.Pod, fieldPath string) (string, error) {
	switch fieldPath {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return pod.Status.HostIP, nil
	case "status.hostIPs":
		return hostIPs(&pod.Status), nil
	case "status.podIP":
		return pod.Status.PodIP, nil
	case "status.podIPs":
		return podIPs(&pod.Status), nil
	}
	return subscripted(pod, fieldPath)
}

// subscripted returns the value of metadata.labels['KEY'] or metadata.annotations['KEY'], "" if the key does not exist.
func subscripted(pod *corev1.Pod, fieldPath string) (string, error) {
	for prefix, values := range map[string]map[string]string{"metadata.labels['": pod.Labels, "metadata.annotations['": pod.Annotations} {
		key, found := strings.CutPrefix(fieldPath, prefix)
		if key, closed := strings.CutSuffix(key, "']"); found && closed && key != "" {
			return values[key], nil
		}
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", fieldPath)
}

func formatMap(values map[string]string) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		all = append(all, key+"="+strconv.Quote(values[key]))
	}
	return strings.Join(all, "\n")
}

func hostIPs(status *corev1.PodStatus) string {
	var all []string
	for _, ip := range status.HostIPs {
		all = append(all, ip.IP)
	}
	return strings.Join(all, ",")
}

func podIPs(status *corev1.PodStatus) string {
	var all []string
	for _, ip := range status.PodIPs {
		all = append(all, ip.IP)
	}
	return strings.Join(all, ",")
}

// ContainerResource returns the value of a resourceFieldRef, rounded up to whole divisors. container is the container whose
// environment has the reference, which may name another container. The value of a limit that is not set is the allocatable
// resource of the node.
func ContainerResource(pod *corev1.Pod, container string, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	if ref.ContainerName != "" {
		container = ref.ContainerName
	}
	resources := resourcesOf(pod, container)
	if resources == nil {
		return "", fmt.Errorf("container %s not found", container)
	}
	kind, rest, _ := strings.Cut(ref.Resource, ".")
	name := corev1.ResourceName(rest)
	if name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage &&
		!strings.HasPrefix(rest, corev1.ResourceHugePagesPrefix) {
		kind = ""
	}
	switch kind {
	case "limits":
		limit, ok := resources.Limits[name]
		if !ok || limit.IsZero() {
			limit = allocatable[name]
		}
		return divide(name, limit, ref.Divisor), nil
	case "requests":
		return divide(name, resources.Requests[name], ref.Divisor), nil
	}
	return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
}

func resourcesOf(pod *corev1.Pod, container string) *corev1.ResourceRequirements {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == container {
				return &list[i].Resources
			}
		}
	}
	return nil
}

// divide returns the quotient, rounded up. It counts CPU in thousandths, because the divisor may be 1m.
func divide(name corev1.ResourceName, quantity, divisor resource.Quantity) string {
	if divisor.Sign() <= 0 {
		divisor = *resource.NewQuantity(1, resource.DecimalSI)
	}
	count, by := quantity.Value(), divisor.Value()
	if name == corev1.ResourceCPU {
		count, by = quantity.MilliValue(), divisor.MilliValue()
	}
	result := count / by
	if count%by > 0 {
		result++
	}
	return strconv.FormatInt(result, 10)
}
