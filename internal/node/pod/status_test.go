package pod

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/cri"
)

// TestStatus checks the phase, the states of the containers, and the conditions that are not true.
func TestStatus(t *testing.T) {
	t.Parallel()
	two := func(s *situation) { s.pod.Spec.Containers = append(s.pod.Spec.Containers, corev1.Container{Name: "b"}) }
	type all = []cri.Container
	tests := []struct {
		name      string
		sandboxes []cri.Sandbox
		observed  []cri.Container
		change    []func(*situation)
		want      string
	}{
		{name: "new", want: "Pending main=ContainerCreating not PodReadyToStartContainers, Ready ContainersNotReady"},
		{name: "sandbox", sandboxes: live, want: "Pending main=ContainerCreating not Ready ContainersNotReady"},
		{name: "init", sandboxes: live, observed: all{runsNow("i", 0)}, change: []func(*situation){withInit("i")},
			want: "Pending i=running main=PodInitializing not Initialized ContainersNotInitialized, Ready ContainersNotReady"},
		{name: "runs", sandboxes: live, observed: all{runsNow("main", 0)}, want: "Running main=running"},
		{name: "one runs", sandboxes: live, observed: all{runsNow("main", 0)}, change: []func(*situation){two},
			want: "Pending main=running b=ContainerCreating not Ready ContainersNotReady"},
		{name: "sidecar is down", sandboxes: live, observed: all{runsNow("main", 0), ran("side", 0, 1)}, change: []func(*situation){withInit("side")},
			want: "Running side=Error1 main=running not Ready ContainersNotReady"},
		{name: "ended, again at once", sandboxes: live, observed: all{ran("main", 0, 1)}, want: "Running main=Error1 not Ready ContainersNotReady"},
		{name: "held back", sandboxes: live, observed: all{ran("main", 1, 1)},
			change: []func(*situation){func(s *situation) { s.memory.restarts["main"] = restart{firstRestart, t0.Add(-10 * time.Second)} }},
			want:   "Running main=CrashLoopBackOff(1) last Error1 not Ready ContainersNotReady"},
		{name: "runs again", sandboxes: live, observed: all{runsNow("main", 1), ran("main", 0, 3)}, want: "Running main=running(1) last Error3"},
		{name: "succeeded", sandboxes: dead, observed: all{ran("main", 0, 0)}, change: []func(*situation){withPolicy("Never")},
			want: "Succeeded main=Completed0 not PodReadyToStartContainers, Ready PodCompleted"},
		{name: "failed", sandboxes: dead, observed: all{ran("main", 0, 2)}, change: []func(*situation){withPolicy("Never")},
			want: "Failed main=Error2 not PodReadyToStartContainers, Ready PodFailed"},
		{name: "succeeded, sidecar runs on", sandboxes: live, observed: all{ran("main", 0, 0), runsNow("side", 0)}, change: []func(*situation){withInit("side"), withPolicy("Never")},
			want: "Running side=running main=Completed0 not Ready ContainersNotReady"},
		{name: "deleted", sandboxes: live, observed: all{runsNow("main", 0)}, change: []func(*situation){deleted(30, 0)}, want: "Running main=running"},
		{name: "deleted and ended", sandboxes: live, observed: all{ran("main", 0, 143)}, change: []func(*situation){deleted(30, 0)},
			want: "Failed main=Error143 not Ready PodFailed"},
		{name: "refused", change: []func(*situation){func(s *situation) { s.failure = &failure{"UnsupportedField", "no"} }},
			want: "Failed UnsupportedField not PodReadyToStartContainers, Ready PodFailed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &situation{pod: aPod(), observed: cri.Pod{Sandboxes: test.sandboxes, Containers: test.observed}, now: t0, started: t0, memory: newMemory()}
			for _, f := range test.change {
				f(s)
			}
			status := s.status(&statusInput{former: &s.pod.Status, message: func(*corev1.Container, *cri.Container) string { return "" }})
			if got := summary(&status); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func summary(s *corev1.PodStatus) string {
	words := []string{string(s.Phase)}
	if s.Reason != "" {
		words = append(words, s.Reason)
	}
	for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
		words = append(words, c.Name+"="+stateText(&c.State)+restartText(c.RestartCount))
		if c.LastTerminationState.Terminated != nil {
			words = append(words, "last "+stateText(&c.LastTerminationState))
		}
	}
	var not []string
	for _, c := range s.Conditions {
		if c.Status != corev1.ConditionTrue && c.Type != corev1.ContainersReady {
			not = append(not, strings.TrimSpace(string(c.Type)+" "+c.Reason))
		}
	}
	if len(not) > 0 {
		words = append(words, "not "+strings.Join(not, ", "))
	}
	return strings.Join(words, " ")
}

func stateText(s *corev1.ContainerState) string {
	switch {
	case s.Waiting != nil:
		return s.Waiting.Reason
	case s.Running != nil:
		return "running"
	}
	return s.Terminated.Reason + strconv.Itoa(int(s.Terminated.ExitCode))
}

func restartText(n int32) string {
	if n == 0 {
		return ""
	}
	return "(" + strconv.Itoa(int(n)) + ")"
}

func TestStatusKeepsTransitions(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod())
	pod := n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	before := pod.Status.Conditions[findCondition(&pod.Status, corev1.PodReady)].LastTransitionTime
	n.api.edit("web", func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/mine", Status: corev1.ConditionTrue})
		p.Generation = 2
	})
	pod = n.awaitPod("generation is seen", "web", func(s *corev1.PodStatus) bool { return s.ObservedGeneration == 2 })
	if after := pod.Status.Conditions[findCondition(&pod.Status, corev1.PodReady)].LastTransitionTime; !after.Equal(&before) {
		t.Errorf("ready since %v, was %v", after, before)
	}
	if findCondition(&pod.Status, "example.com/mine") < 0 {
		t.Error("another's condition was taken away")
	}
	if pod.Status.StartTime == nil || !pod.Status.StartTime.Equal(ptr.To(metav1.NewTime(t0))) {
		t.Errorf("start time %v", pod.Status.StartTime)
	}
}

// TestNewLabelsReachTheVolumes checks that the volumes are set up again after the pod's labels have changed, for downwardAPI
// volumes.
func TestNewLabelsReachTheVolumes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.api.edit("web", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} })
	n.await("volumes are set up again", func() bool { return n.journal.count("set up volumes") == 2 })
	if n.journal.count("start main") != 1 {
		t.Errorf("journal %q", n.journal.all())
	}
}

func TestStatusPatch(t *testing.T) {
	t.Parallel()
	seen := aPod(func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	})
	same := seen.Status.DeepCopy()
	if patch, err := statusPatch(seen, same); err != nil || patch != nil {
		t.Errorf("nothing new makes %s, %v", patch, err)
	}
	same.Phase = corev1.PodRunning
	patch, err := statusPatch(seen, same)
	if got, want := string(patch), `{"metadata":{"uid":"uid-1"},"status":{"phase":"Running"}}`; err != nil || got != want {
		t.Errorf("patch %s, want %s (%v)", got, want, err)
	}
}

// TestPatchIsForOnePod checks that the status of a pod is not written to another pod of the same name.
func TestPatchIsForOnePod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) { p.UID = "uid-2" }))
	patch, err := statusPatch(aPod(), &corev1.PodStatus{Phase: corev1.PodFailed, Reason: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.api.PatchStatus(t.Context(), "default", "web", patch); err == nil || !strings.Contains(err.Error(), "another UID") {
		t.Errorf("error %v", err)
	}
}

func TestIsOlder(t *testing.T) {
	t.Parallel()
	at := func(version string) *corev1.Pod { return aPod(func(p *corev1.Pod) { p.ResourceVersion = version }) }
	if !isOlder(at("9"), at("10")) || isOlder(at("10"), at("9")) || isOlder(at("9"), at("9")) || isOlder(at("a"), at("b")) {
		t.Error("versions are compared wrongly")
	}
}
