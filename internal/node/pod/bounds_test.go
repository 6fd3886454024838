package pod

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/node/cri"
)

// A pod of a few kilobytes must not make the agent hold gigabytes: each variable is twice the one before, or the same
// long one is asked for again and again.
func TestEnvironmentIsBounded(t *testing.T) {
	t.Parallel()
	doubling := []corev1.EnvVar{{Name: "V0", Value: "0123456789"}}
	for i := 1; i <= 22; i++ {
		doubling = append(doubling, corev1.EnvVar{Name: fmt.Sprintf("V%d", i), Value: fmt.Sprintf("$(V%d)$(V%d)", i-1, i-1)})
	}
	var copies []corev1.EnvVar
	for i := range 100 {
		copies = append(copies, corev1.EnvVar{Name: fmt.Sprintf("V%d", i), ValueFrom: fieldRef("metadata.annotations['long']")})
	}
	for name, env := range map[string][]corev1.EnvVar{"doubling": doubling, "copies": copies} {
		e := testEnvironment()
		e.pod.Annotations["long"] = strings.Repeat("x", 100<<10)
		e.container.Env = env
		all, err := e.resolve(t.Context())
		if err == nil || all != nil {
			size := 0
			for _, v := range all {
				size += len(v.Value)
			}
			t.Errorf("%s: %d bytes, %v", name, size, err)
		}
	}
}

// Arguments repeat variables, too.
func TestArgumentsAreBounded(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) {
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "LONG", Value: strings.Repeat("x", 100<<10)}}
		p.Spec.Containers[0].Args = []string{strings.Repeat("$(LONG)", 100)}
	}))
	n.awaitPod("container is refused", "web", waitsFor(createContainerConfigError))
}

// An image that is there needs no turn among those that are pulled, which may take for ever.
func TestPresentImageNeedsNoTurn(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for range cap(n.pods.pulls) {
		n.pods.pulls <- struct{}{}
	}
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
}

// What a sandbox needs from others is asked for until it is there.
func TestSandboxIsToldOfAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.refusals.Store(2)
	n.apply(aPod())
	n.await("told three times", func() bool { return n.journal.count("sandbox up true") == 3 })
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	for range 100 {
		n.clock.Step(relistPeriod)
	}
	if told := n.journal.count("sandbox up true"); told != 3 {
		t.Errorf("told %d times", told)
	}
}

// A status that comes back from a write after its pod was forgotten is not remembered.
func TestForgottenStaysForgotten(t *testing.T) {
	t.Parallel()
	p := newPublisher(nil, testingclock.NewFakeClock(t0))
	pod := aPod()
	p.see(pod)
	p.forget(pod.UID)
	p.written(pod)
	if len(p.entries) != 0 {
		t.Errorf("entries %v", p.entries)
	}
}

// A time longer than can be counted is long, not none.
func TestLongestGrace(t *testing.T) {
	t.Parallel()
	for _, seconds := range []int64{math.MaxInt64, math.MaxInt64/int64(time.Second) + 1, 1 << 40} {
		pod := aPod(func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = &seconds })
		s := &situation{pod: pod, now: t0}
		if got := s.grace(); got < 24*365*time.Hour || !t0.Add(got).After(t0) {
			t.Errorf("%d s: %v", seconds, got)
		}
		deleted := metav1.NewTime(t0.Add(time.Hour))
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &deleted, &seconds
		if got := s.grace(); got < time.Hour {
			t.Errorf("deleted with %d s: %v", seconds, got)
		}
	}
}

// The names of other pods' containers in a status, which others may have written, lead nowhere.
func TestFoundPodKnowsOwnContainers(t *testing.T) {
	t.Parallel()
	ended := func(id string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://" + id}}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	pod := aPod(func(p *corev1.Pod) {
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", ContainerID: "containerd://init", State: ended("init")}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{
			{Name: "main", ContainerID: "containerd://theirs", State: running, LastTerminationState: ended("own")},
			{Name: "other", ContainerID: "containerd://other", State: running, LastTerminationState: ended("theirs")},
		}
	})
	held := &cri.Pod{Containers: []cri.Container{{Name: "main", ID: "own"}, {Name: "init", ID: "init"}, {Name: "other", ID: "other"}}}
	want := pod.Status.DeepCopy()
	want.ContainerStatuses[0].ContainerID, want.ContainerStatuses[0].State = "", corev1.ContainerState{}
	want.ContainerStatuses[1].LastTerminationState = corev1.ContainerState{}
	if diff := cmp.Diff(*want, withoutStrangers(pod, held).Status); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if pod.Status.ContainerStatuses[0].ContainerID == "" {
		t.Error("the pod itself was changed")
	}
}
