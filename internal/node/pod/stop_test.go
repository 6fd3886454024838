package pod

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/cri"
)

func TestGracefulEnd(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		grace    int64
		stubborn bool
		want     string
		within   time.Duration
	}{
		{"ends by itself", 30, false, "stop main 30s", 3 * time.Second},
		{"is killed", 5, true, "stop main 5s", 9 * time.Second},
		{"now", 1, true, "stop main 1s", 4 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.runtime.programs["main"] = program{ignoresEnd: test.stubborn}
			n.apply(aPod())
			n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
			began := n.clock.Now()
			n.delete("web", test.grace)
			n.await("object is gone", func() bool { return n.api.get("web") == nil })
			if took := n.clock.Since(began); took > test.within {
				t.Errorf("took %v", took)
			}
			n.await("nothing is left", n.isIdle)
			order := []string{test.want, "ended main", "delete object", "tear down uid-1", "remove sandbox", "remove logs of web"}
			last := -1
			for _, line := range order {
				at := n.journal.index(line)
				if at <= last {
					t.Errorf("%q is out of order in %q", line, n.journal.all())
				}
				last = at
			}
			if !n.events.has("Normal Killing spec.containers{main}: Stopping container main") || n.journal.count(test.want) != 1 {
				t.Errorf("events %q, journal %q", n.events.all(), n.journal.all())
			}
		})
	}
}

func TestShorterGraceTakesEffect(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.runtime.programs["main"] = program{ignoresEnd: true}
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.delete("web", 600)
	n.await("is stopped", func() bool { return n.journal.count("stop main 600s")+n.journal.count("stop main 10m0s") == 1 })
	began := n.clock.Now()
	n.delete("web", 1)
	n.await("object is gone", func() bool { return n.api.get("web") == nil })
	if took := n.clock.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestForceKillsAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.runtime.programs["main"] = program{ignoresEnd: true}
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	if err := n.api.Delete(t.Context(), "default", "web", "uid-1"); err != nil {
		t.Fatal(err)
	}
	n.await("nothing is left", n.isIdle)
	if n.journal.count("stop main 0s") != 1 || n.journal.count("delete object") != 1 {
		t.Errorf("journal %q", n.journal.all())
	}
}

func TestSidecarsEndLast(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) {
		always := ptr.To(corev1.ContainerRestartPolicyAlways)
		p.Spec.InitContainers = []corev1.Container{{Name: "s1", Image: "s", RestartPolicy: always}, {Name: "s2", Image: "s", RestartPolicy: always}}
	}))
	pod := n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	if s := pod.Status.InitContainerStatuses[0]; s.State.Running == nil || !s.Ready {
		t.Errorf("sidecar %+v", s)
	}
	n.delete("web", 30)
	n.await("nothing is left", n.isIdle)
	last := -1
	for _, line := range []string{"start s1", "start s2", "start main", "ended main", "ended s2", "ended s1", "delete object"} {
		at := n.journal.index(line)
		if at <= last {
			t.Errorf("%q is out of order in %q", line, n.journal.all())
		}
		last = at
	}
}

// TestJobWithSidecarEnds checks that a pod whose containers have completed stops its sidecars, and succeeds only afterwards.
func TestJobWithSidecarEnds(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.runtime.programs["main"] = program{runs: 2 * time.Second}
	n.apply(aPod(func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.InitContainers = []corev1.Container{{Name: "side", Image: "s", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
	}))
	n.awaitPod("pod ends", "web", isPhase(corev1.PodSucceeded))
	if n.journal.count("ended side") != 1 || n.journal.count("start side") != 1 {
		t.Errorf("journal %q", n.journal.all())
	}
}

func TestAuthorityIsAway(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.delete("web", 1)
	n.api.mu.Lock()
	n.api.away = true
	n.api.mu.Unlock()
	n.await("all of it is cleaned up", func() bool { return n.journal.count("remove logs of web") == 1 })
	until := n.clock.Now().Add(time.Minute)
	n.await("a minute passes", func() bool { return n.clock.Now().After(until) })
	n.api.mu.Lock()
	n.api.away = false
	n.api.mu.Unlock()
	n.await("object is gone", func() bool { return n.api.get("web") == nil })
	n.await("nothing is left", n.isIdle)
}

// TestPodsGoOnWithoutAuthority checks that containers are restarted while the authority cannot be reached, and that their
// statuses are written when it is back.
func TestPodsGoOnWithoutAuthority(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.api.mu.Lock()
	n.api.away = true
	n.api.mu.Unlock()
	n.runtime.kill("uid-1")
	n.await("container was started again", func() bool { return n.journal.count("start main") == 2 })
	n.api.mu.Lock()
	n.api.away = false
	n.api.mu.Unlock()
	n.awaitPod("status follows", "web", func(s *corev1.PodStatus) bool { return s.ContainerStatuses[0].RestartCount == 1 })
}

func TestAgentReturns(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.begin()
	n.pods.Synced()
	n.await("volumes are taken over", func() bool { return n.journal.count("set up volumes") == 2 })
	until := n.clock.Now().Add(10 * time.Second)
	n.await("some time passes", func() bool { return n.clock.Now().After(until) })
	if n.journal.count("start main") != 1 || n.journal.count("run sandbox 0") != 1 || n.journal.count("sandbox up true") != 2 {
		t.Errorf("journal %q", n.journal.all())
	}
	pod := n.api.get("web")
	if pod.Status.Phase != corev1.PodRunning || pod.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("status %+v", pod.Status)
	}
}

// TestReturnKeepsBackOff checks that a new agent continues the back-off of a crashing container.
func TestReturnKeepsBackOff(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.runtime.programs["main"] = program{runs: time.Second, code: 1}
	n.apply(aPod())
	n.await("third start", func() bool { return n.journal.count("start main") == 4 })
	n.awaitPod("held back", "web", waitsFor("CrashLoopBackOff"))
	n.begin()
	n.pods.Synced()
	until := n.clock.Now().Add(15 * time.Second)
	n.await("some time passes", func() bool { return n.clock.Now().After(until) })
	if got := n.journal.count("start main"); got != 4 {
		t.Errorf("%d starts", got)
	}
	n.await("next start", func() bool { return n.journal.count("start main") == 5 })
}

// TestLeftoversWaitForTheList checks that the leftovers of deleted pods are removed, but not before all existing pods are
// known.
func TestLeftoversWaitForTheList(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.stop()
	n.api.mu.Lock()
	clear(n.api.pods) // deleted with force while the agent was away
	n.api.mu.Unlock()
	n.volumes.existing = []types.UID{"uid-1", "uid-9"}
	n.runtime.logged = []cri.Pod{{Namespace: "default", Name: "old", UID: "uid-7"}}
	if err := os.MkdirAll(filepath.Join(n.root, "uid-8", "containers"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.begin()
	until := n.clock.Now().Add(time.Minute)
	n.await("a minute passes", func() bool { return n.clock.Now().After(until) })
	if n.journal.count("ended main")+n.journal.count("tear down uid-9") != 0 {
		t.Fatalf("journal %q", n.journal.all())
	}
	n.pods.Synced()
	n.await("all of it goes", func() bool {
		return n.isIdle() && n.journal.count("tear down uid-9") == 1 && n.journal.count("tear down uid-8") == 1 && n.journal.count("tear down uid-1") > 0 &&
			n.journal.count("remove logs of old") == 1
	})
	if n.journal.count("stop main 0s") != 1 {
		t.Errorf("journal %q", n.journal.all())
	}
}

// TestReturnDuringGrace checks that a deleted pod has the rest of its grace period, and not all of it again, after the agent
// was restarted.
func TestReturnDuringGrace(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.runtime.programs["main"] = program{ignoresEnd: true}
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.delete("web", 60)
	n.await("is stopped", func() bool { return n.journal.count("stop main 1m0s") == 1 })
	n.stop()
	n.clock.Step(50 * time.Second)
	before := len(n.journal.all())
	n.begin()
	n.pods.Synced()
	n.await("nothing is left", n.isIdle)
	stops := 0
	for _, line := range n.journal.all()[before:] {
		if text, ok := strings.CutPrefix(line, "stop main "); ok {
			stops++
			if grace, err := time.ParseDuration(text); err != nil || grace > 11*time.Second {
				t.Errorf("%s: 10 s are left, rounded up to whole seconds", line)
			}
		}
	}
	if stops == 0 {
		t.Errorf("journal %q", n.journal.all())
	}
}

func TestNameIsTakenByAnother(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.apply(aPod(func(p *corev1.Pod) { p.UID = "uid-2" }))
	n.await("the old one goes", func() bool { return n.journal.count("tear down uid-1") == 1 && len(n.pods.known()) == 1 })
	n.awaitPod("the new one runs", "web", isPhase(corev1.PodRunning))
}
