package pod

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/workload"
)

func TestRenewed(t *testing.T) {
	t.Parallel()
	token := corev1.Volume{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}}}
	tests := []struct{ how, want, event string }{
		{"signal:HUP", "main 1", "Normal RenewalNotified spec.containers{main}: Told the container of the renewal by signal:HUP"},
		{"exec:/bin/reload --now", `main ["/bin/reload" "--now"]`, "Normal RenewalNotified spec.containers{main}: Told the container of the renewal by exec"},
	}
	for _, test := range tests {
		t.Run(test.how, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.apply(aPod(func(p *corev1.Pod) {
				p.Annotations = map[string]string{workload.OnRenew: test.how}
				p.Spec.Volumes = []corev1.Volume{token, {Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
				p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "token", MountPath: "/token"}}
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Image: "app:1"})
			}))
			pod := n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
			n.pods.Renewed(pod, []string{"scratch"})
			n.pods.Renewed(pod, []string{"token"})
			n.await("event", func() bool { return n.events.has(test.event) })
			if got := strings.Join(n.runtime.signals, ","); got != test.want {
				t.Errorf("did %q, want %q", got, test.want)
			}
			if n.events.has("--now") {
				t.Errorf("the command is in an event: %q", n.events.all())
			}
			if !n.events.has("Normal TokenRenewed Renewed the token in volume token") {
				t.Errorf("events %q", n.events.all())
			}
		})
	}
}
