package tokenvolume

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPodField(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "shop", UID: "u", Labels: map[string]string{"app": "x"},
			Annotations: map[string]string{"example.com/a": "line\nbreak"}},
		Spec: corev1.PodSpec{NodeName: "n", ServiceAccountName: "s"},
		Status: corev1.PodStatus{HostIP: "10.0.0.1", PodIP: "10.1.0.1", PodIPs: []corev1.PodIP{{IP: "10.1.0.1"}, {IP: "fd00::1"}},
			HostIPs: []corev1.HostIP{{IP: "10.0.0.1"}, {IP: "fd00::2"}}},
	}
	for path, want := range map[string]string{
		"metadata.name": "p", "metadata.namespace": "shop", "metadata.uid": "u", "metadata.labels": `app="x"`,
		"metadata.annotations": `example.com/a="line\nbreak"`, "metadata.annotations['example.com/a']": "line\nbreak",
		"metadata.labels['app']": "x", "metadata.labels['none']": "", "spec.nodeName": "n", "spec.serviceAccountName": "s",
		"status.hostIP": "10.0.0.1", "status.hostIPs": "10.0.0.1,fd00::2", "status.podIP": "10.1.0.1", "status.podIPs": "10.1.0.1,fd00::1",
	} {
		if got, err := PodField(pod, path); err != nil || got != want {
			t.Errorf("%s = %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"", "metadata", "metadata.labels['", "metadata.labels['']", "metadata.labels['a", "metadata.name['a']", "status.phase"} {
		if got, err := PodField(pod, path); err == nil {
			t.Errorf("%s = %q, want an error", path, got)
		}
	}
}

func TestContainerResource(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "i", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("2")}}}},
		Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
			Limits:   corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("64Mi")},
			Requests: corev1.ResourceList{"memory": resource.MustParse("1000")},
		}}, {Name: "d"}},
	}}
	node := corev1.ResourceList{"cpu": resource.MustParse("8"), "memory": resource.MustParse("1Gi")}
	for _, test := range []struct{ container, of, resource, divisor, want string }{
		{"c", "", "limits.cpu", "0", "2"}, {"c", "", "limits.cpu", "1m", "1500"}, {"c", "", "limits.memory", "1Mi", "64"},
		{"c", "", "limits.memory", "1", "67108864"}, {"c", "", "requests.memory", "1Ki", "1"}, {"c", "", "requests.cpu", "1", "0"},
		{"c", "d", "limits.cpu", "1", "8"}, {"d", "", "limits.memory", "1Gi", "1"}, {"c", "i", "limits.cpu", "1", "2"}, {"d", "", "requests.memory", "1", "0"},
		{"c", "", "limits.ephemeral-storage", "1", "0"},
	} {
		ref := &corev1.ResourceFieldSelector{ContainerName: test.of, Resource: test.resource, Divisor: resource.MustParse(test.divisor)}
		if got, err := ContainerResource(pod, test.container, ref, node); err != nil || got != test.want {
			t.Errorf("%+v: got %q, %v", test, got, err)
		}
	}
	for want, ref := range map[string]*corev1.ResourceFieldSelector{
		"container x not found":                    {ContainerName: "x", Resource: "limits.cpu"},
		"unsupported container resource : cpu":     {ContainerName: "c", Resource: "cpu"},
		"unsupported container resource : a.cpu":   {ContainerName: "c", Resource: "a.cpu"},
		"unsupported container resource : limits.": {ContainerName: "c", Resource: "limits."},
	} {
		if got, err := ContainerResource(pod, "c", ref, node); err == nil || err.Error() != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
}

// FuzzPodField checks that PodField does not panic, and that whether it supports a path does not depend on the pod.
func FuzzPodField(f *testing.F) {
	for _, seed := range []string{"metadata.name", "metadata.labels['a']", "metadata.annotations['']", "metadata.labels['']']"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		_, empty := PodField(&corev1.Pod{}, path)
		_, full := PodField(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}}, path)
		if (empty == nil) != (full == nil) {
			t.Errorf("%q: %v, %v", path, empty, full)
		}
	})
}
