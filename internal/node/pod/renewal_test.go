package pod

import (
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/podannotation"
)

func TestRenewed(t *testing.T) {
	t.Parallel()
	token := corev1.Volume{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}}}
	tests := []struct{ how, want, event string }{
		{"signal:HUP", "main 1", "Normal RenewalNotified spec.containers{main}: Notified the container of the renewal by signal:HUP"},
		{"exec:/bin/reload --now", `main ["/bin/reload" "--now"]`, "Normal RenewalNotified spec.containers{main}: Notified the container of the renewal by exec"},
	}
	for _, test := range tests {
		t.Run(test.how, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.apply(aPod(func(p *corev1.Pod) {
				p.Annotations = map[string]string{podannotation.OnRenew: test.how}
				p.Spec.Volumes = []corev1.Volume{token, {Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
				p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "token", MountPath: "/token"}}
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Image: "app:1"})
			}))
			pod := n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
			n.volumes.onRenew(pod, []string{"scratch"})
			n.volumes.onRenew(pod, []string{"token"})
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

// TestRenewedAsStarted changes the annotation of a running pod in its object, and then also for an agent that has not seen the
// former annotation. Only the annotation that the pod had when it was started is carried out.
func TestRenewedAsStarted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ before, after, want string }{
		"added":   {"", "exec:/bin/sh -c id", ""},
		"changed": {"signal:HUP", "exec:/bin/sh -c id", "main 1"},
		"removed": {"signal:HUP", "", "main 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			annotate := func(p *corev1.Pod, how string) {
				p.Annotations = map[string]string{}
				if how != "" {
					p.Annotations[podannotation.OnRenew] = how
				}
			}
			n.apply(aPod(func(p *corev1.Pod) {
				annotate(p, test.before)
				p.Spec.Volumes = []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
				p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "token", MountPath: "/token"}}
			}))
			pod := n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning)).DeepCopy()
			annotate(pod, test.after)
			n.pods.Set(pod)
			n.volumes.onRenew(pod, []string{"token"})
			n.pods.mu.Lock()
			w := n.pods.workers[pod.UID]
			n.pods.mu.Unlock()
			if kept, _, _ := w.snapshot(); kept.Annotations[podannotation.OnRenew] != test.before {
				t.Errorf("a new sandbox would have %q", kept.Annotations[podannotation.OnRenew])
			}
			w.mu.Lock()
			w.pod = pod // the pod of an agent that starts after the change
			w.mu.Unlock()
			if test.want != "" {
				n.await("event", func() bool { return n.events.has("Normal RenewalNotified") })
			}
			if how, ok := w.notice(); ok != (test.before != "") || ok && how.Signal != syscall.SIGHUP {
				t.Errorf("on a renewal: %+v, %v", how, ok)
			}
			if got := strings.Join(n.runtime.signals, ","); got != test.want {
				t.Errorf("did %q, want %q", got, test.want)
			}
		})
	}
}
