package cli

import (
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubectl/pkg/util/qos"

	podregistry "lanyard.dev/internal/apiserver/registry/pod"
)

// TestQOSClassAsKubectl compares the class that the authority gives to random pods with the one that kubectl computes.
// The test is not beside the authority's code because whoever imports lanyardtest would need module kubectl then.
func TestQOSClassAsKubectl(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	seen := map[corev1.PodQOSClass]int{}
	for range 20_000 {
		pod := randomPod(random)
		got, want := podregistry.QOSClass(pod), qos.ComputePodQOS(pod)
		if got != want {
			t.Fatalf("got %s, want %s, of %+v", got, want, pod.Spec)
		}
		seen[want]++
	}
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSBestEffort, corev1.PodQOSBurstable, corev1.PodQOSGuaranteed} {
		if seen[class] < 100 {
			t.Errorf("only %d pods of class %s were compared", seen[class], class)
		}
	}
}

// randomPod draws from few amounts, so that requests often equal limits. What its pod or a container has is often what
// the one before it has.
func randomPod(random *rand.Rand) *corev1.Pod {
	resources := randomResources(random)
	next := func() corev1.ResourceRequirements {
		if random.IntN(3) == 0 {
			resources = randomResources(random)
		}
		return resources
	}
	pod := &corev1.Pod{}
	if random.IntN(3) == 0 {
		resources := next()
		pod.Spec.Resources = &resources
	}
	for range random.IntN(2) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Resources: next()})
	}
	for range random.IntN(4) {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Resources: next()})
	}
	return pod
}

func randomResources(random *rand.Rand) corev1.ResourceRequirements {
	limits := randomList(random)
	requests := limits
	if random.IntN(2) == 0 {
		requests = randomList(random)
	}
	return corev1.ResourceRequirements{Requests: requests, Limits: limits}
}

func randomList(random *rand.Rand) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, "hugepages-2Mi", "example.com/gpu"} {
		if amounts := []string{"0", "1", "2", "2000m"}; random.IntN(2) == 0 {
			list[name] = resource.MustParse(amounts[random.IntN(len(amounts))])
		}
	}
	if random.IntN(3) == 0 {
		return nil
	}
	return list
}
