package pod

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics/testutil"

	"lanyard.dev/internal/node/cri"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	value := func(name string, labels map[string]string) float64 {
		t.Helper()
		found, err := n.metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range found {
			for _, m := range family.GetMetric() {
				if family.GetName() == name && testutil.LabelsMatch(m, labels) {
					return m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
		return -1
	}
	n.runtime.absent["none:1"] = &cri.ImageError{Reason: cri.ErrImagePull, Message: "no such host"}
	n.apply(aPod())
	n.apply(aPod(func(p *corev1.Pod) { p.Name, p.UID, p.Spec.Containers[0].Image = "other", "uid-2", "none:1" }))
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.awaitPod("other waits", "other", waitsFor("ErrImagePull"))
	for _, test := range []struct {
		name, label, value string
		want               float64
	}{
		{"lanyard_pods", "phase", "Running", 1}, {"lanyard_pods", "phase", "Pending", 1}, {"lanyard_pods", "phase", "Failed", 0},
	} {
		if got := value(test.name, map[string]string{test.label: test.value}); got != test.want {
			t.Errorf("%s{%s=%q} is %v, want %v", test.name, test.label, test.value, got, test.want)
		}
	}
	if got := value("lanyard_running_containers", nil); got != 1 {
		t.Errorf("%v containers run, want 1", got)
	}
	for operation, result := range map[string]string{"list": "success", "run_sandbox": "success", "start_container": "success", "pull_image": "error"} {
		if got := value("lanyard_runtime_operations_total", map[string]string{"operation": operation, "result": result}); got < 1 {
			t.Errorf("%s with %s: %v", operation, result, got)
		}
	}
}
