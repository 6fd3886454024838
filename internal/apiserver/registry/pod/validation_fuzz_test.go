package pod

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// FuzzValidate sends whatever decodes as a pod through everything that sees a pod on its way into the store.
func FuzzValidate(f *testing.F) {
	seeds := []*corev1.Pod{{}, minimal(), defaulted(nil), defaulted(projected(token("t", nil))), large(3)}
	for _, seed := range seeds {
		text, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"spec":{"containers":[{"resources":{"limits":{"hugepages-0":"1","hugepages-":"1e30"}}}],"resources":{}}}`))
	f.Add([]byte(`{"metadata":{"annotations":{"scheduler.alpha.kubernetes.io/tolerations":"[{}]"}},"spec":{"affinity":{},"schedulingGates":[{}]}}`))
	old := stored(spec(func(s *corev1.PodSpec) { s.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}} }))
	f.Fuzz(func(t *testing.T, text []byte) {
		var pod corev1.Pod
		if json.Unmarshal(text, &pod) != nil {
			return
		}
		raw := pod.DeepCopy()
		for _, p := range []*corev1.Pod{raw, &pod} {
			if p == &pod {
				SetDefaults(p)
			}
			if errs := Validate(p); len(errs) > maxFaults {
				t.Errorf("%d faults", len(errs))
			}
			ValidateUpdate(p, old)
			ValidateUpdate(p, raw)
			ValidateStatusUpdate(p, old)
			ValidateStatusUpdate(p, raw)
			Warnings(p)
			Fields(p)
			QOSClass(p)
			Row(p, time.Time{})
		}
	})
}

// large returns a defaulted pod with n of much; 700 make about a megabyte of JSON.
func large(n int) *corev1.Pod {
	pod := minimal()
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name})
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Key: name, Operator: corev1.TolerationOpExists})
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: name, Image: "registry.example/web:1", ReadinessProbe: httpProbe(),
			Env:          []corev1.EnvVar{{Name: "A", Value: name}, {Name: "B", Value: name}},
			VolumeMounts: []corev1.VolumeMount{{Name: name, MountPath: "/a"}},
			Resources:    corev1.ResourceRequirements{Limits: list("cpu", "1")},
		})
	}
	SetDefaults(pod)
	return pod
}

func BenchmarkValidate(b *testing.B) {
	for _, n := range []int{0, 1500} {
		pod := large(n)
		text, err := json.Marshal(pod)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%dB", len(text)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if errs := Validate(pod); len(errs) > 0 {
					b.Fatal(errs)
				}
			}
		})
	}
}

// BenchmarkValidateUpdateRefused is the costliest refusal: every container differs.
func BenchmarkValidateUpdateRefused(b *testing.B) {
	old, updated := large(1500), large(1500)
	for i := range updated.Spec.Containers {
		updated.Spec.Containers[i].WorkingDir = fmt.Sprint(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(ValidateUpdate(updated, old)) == 0 {
			b.Fatal("accepted")
		}
	}
}
