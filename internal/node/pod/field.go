package pod

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// field returns a field of the pod that env may refer to.
func (e *environment) field(path string) (string, error) {
	if value, ok := keyed(path, "metadata.labels", e.pod.Labels); ok {
		return value, nil
	}
	if value, ok := keyed(path, "metadata.annotations", e.pod.Annotations); ok {
		return value, nil
	}
	switch path {
	case "metadata.name":
		return e.pod.Name, nil
	case "metadata.namespace":
		return e.pod.Namespace, nil
	case "metadata.uid":
		return string(e.pod.UID), nil
	case "spec.nodeName":
		return e.pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return e.pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(e.hostIPs), nil
	case "status.hostIPs":
		return strings.Join(e.hostIPs, ","), nil
	case "status.podIP":
		return first(e.podIPs), nil
	case "status.podIPs":
		return strings.Join(e.podIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

// keyed reads field['key'] of a map; a key that is not there is empty.
func keyed(path, field string, values map[string]string) (string, bool) {
	key, ok := strings.CutPrefix(path, field+"['")
	if !ok {
		return "", false
	}
	key, ok = strings.CutSuffix(key, "']")
	return values[key], ok
}

func first(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return all[0]
}

// resource returns a container's request or limit, rounded up, in multiples of the divisor. A container without a limit
// may use what the node has.
func (e *environment) resource(ref *corev1.ResourceFieldSelector) (string, error) {
	container := e.container
	if ref.ContainerName != "" {
		if container = containerOf(e.pod, ref.ContainerName); container == nil {
			return "", fmt.Errorf("container %s not found", ref.ContainerName)
		}
	}
	of, name, _ := strings.Cut(ref.Resource, ".")
	if name != "cpu" && name != "memory" {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	limit, limited := container.Resources.Limits[corev1.ResourceName(name)]
	if !limited || limit.IsZero() {
		limit = e.allocatable[corev1.ResourceName(name)]
	}
	switch of {
	case "limits":
		return multiples(name, limit, ref.Divisor), nil
	case "requests":
		return multiples(name, container.Resources.Requests[corev1.ResourceName(name)], ref.Divisor), nil
	}
	return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
}

func multiples(name string, q, divisor resource.Quantity) string {
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	value, by := q.Value(), divisor.Value()
	if name == "cpu" {
		value, by = q.MilliValue(), divisor.MilliValue()
	}
	if by <= 0 {
		by = 1
	}
	full := value / by
	if value%by > 0 {
		full++
	}
	return strconv.FormatInt(full, 10)
}

// containerOf finds a container by name, of any kind.
func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, all := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range all {
			if all[i].Name == name {
				return &all[i]
			}
		}
	}
	return nil
}
