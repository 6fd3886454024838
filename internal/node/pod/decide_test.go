package pod

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/cri"
)

// text returns the plan in one line.
func (p *plan) text() string {
	var words []string
	for _, one := range p.stop {
		words = append(words, fmt.Sprintf("stop %s %v", one.id, one.grace))
	}
	if p.sandbox != nil {
		words = append(words, fmt.Sprintf("sandbox %d", *p.sandbox))
	}
	for _, one := range p.start {
		words = append(words, fmt.Sprintf("start %s/%d", one.container.Name, one.attempt))
	}
	for what, ids := range map[string][]string{"drop": p.stopSandboxes, "remove": p.removeContainers, "gone": p.removeSandboxes} {
		if len(ids) > 0 {
			words = append(words, what+" "+strings.Join(ids, "+"))
		}
	}
	if p.failure != nil {
		words = append(words, "fail "+p.failure.Reason)
	}
	if p.podEnded {
		words = append(words, "over")
	}
	if !p.wake.IsZero() {
		words = append(words, "wake "+p.wake.Sub(t0).String())
	}
	return strings.Join(words, ", ")
}

var (
	live = []cri.Sandbox{{ID: "s0", Ready: true}}
	dead = []cri.Sandbox{{ID: "s0"}}
	both = []cri.Sandbox{{ID: "s1", Attempt: 1, Ready: true}, {ID: "s0"}}
)

// ran returns a run that ended a second ago. runsNow and others change its state.
func ran(name string, attempt uint32, code int32) cri.Container {
	return cri.Container{
		ID: fmt.Sprintf("%s%d", name, attempt), Name: name, Attempt: attempt, SandboxID: "s0", State: cri.Exited, ExitCode: code,
		StartedAt: t0.Add(-10 * time.Second), FinishedAt: t0.Add(-time.Second),
	}
}

func is(state cri.State, c cri.Container) cri.Container {
	c.State, c.FinishedAt = state, time.Time{}
	return c
}

func in(sandbox string, c cri.Container) cri.Container {
	c.SandboxID = sandbox
	return c
}

func runsNow(name string, attempt uint32) cri.Container {
	return is(cri.Running, ran(name, attempt, 0))
}

func withPolicy(policy corev1.RestartPolicy) func(*situation) {
	return func(s *situation) { s.pod.Spec.RestartPolicy = policy }
}

func withInit(names ...string) func(*situation) {
	return func(s *situation) {
		for _, name := range names {
			c := corev1.Container{Name: name}
			if strings.HasPrefix(name, "side") {
				c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
			}
			s.pod.Spec.InitContainers = append(s.pod.Spec.InitContainers, c)
		}
	}
}

func deleted(grace, ago int64) func(*situation) {
	return func(s *situation) {
		s.ending = true
		s.pod.DeletionGracePeriodSeconds = &grace
		s.pod.DeletionTimestamp = ptr.To(metav1.NewTime(t0.Add(time.Duration(grace-ago) * time.Second)))
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	type all = []cri.Container
	tests := []struct {
		name      string
		sandboxes []cri.Sandbox
		observed  []cri.Container
		change    []func(*situation)
		want      string
	}{
		{name: "new", want: "sandbox 0"},
		{name: "sandbox failed", change: []func(*situation){func(s *situation) { s.sandbox.until = t0.Add(time.Second) }}, want: "wake 1s"},
		{name: "sandbox", sandboxes: live, want: "start main/0"},
		{name: "runs", sandboxes: live, observed: all{runsNow("main", 0)}, want: ""},
		{name: "in no known state", sandboxes: live, observed: all{is(cri.Unknown, runsNow("main", 0))}, want: ""},
		{name: "made but not started", sandboxes: live, observed: all{is(cri.Created, ran("main", 0, 0))}, want: "start main/0, remove main0"},
		{name: "ended", sandboxes: live, observed: all{ran("main", 0, 0)}, want: "start main/1"},
		{name: "held back", sandboxes: live, observed: all{ran("main", 1, 1)},
			change: []func(*situation){func(s *situation) { s.memory.restarts["main"] = restart{10 * time.Second, t0.Add(-10 * time.Second)} }}, want: "wake 9s"},
		{name: "ran for long", sandboxes: live, observed: all{ran("main", 1, 1)},
			change: []func(*situation){func(s *situation) { s.memory.restarts["main"] = restart{maxRestartDelay, t0.Add(-time.Hour)} }}, want: "start main/2"},
		{name: "making failed", sandboxes: live, change: []func(*situation){func(s *situation) { s.attempts["main"] = retry{until: t0.Add(time.Second)} }}, want: "wake 1s"},
		{name: "old runs go", sandboxes: live, observed: all{runsNow("main", 3), ran("main", 2, 1), ran("main", 1, 1), ran("main", 0, 1)}, want: "remove main1+main0"},

		{name: "never: well", sandboxes: live, observed: all{ran("main", 0, 0)}, change: []func(*situation){withPolicy("Never")}, want: "drop s0, over"},
		{name: "never: failed", sandboxes: live, observed: all{ran("main", 0, 1)}, change: []func(*situation){withPolicy("Never")}, want: "drop s0, over"},
		{name: "on failure: well", sandboxes: live, observed: all{ran("main", 0, 0)}, change: []func(*situation){withPolicy("OnFailure")}, want: "drop s0, over"},
		{name: "on failure: failed", sandboxes: live, observed: all{ran("main", 0, 1)}, change: []func(*situation){withPolicy("OnFailure")}, want: "start main/1"},
		{name: "ended before this agent", sandboxes: dead, observed: all{ran("main", 0, 0)},
			change: []func(*situation){func(s *situation) { s.pod.Status.Phase = corev1.PodSucceeded; s.stopped["s0"] = true }}, want: "over"},
		{name: "never, and its traces are lost", change: []func(*situation){withPolicy("Never"), func(s *situation) {
			s.pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://x", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}}, want: "over"},
		{name: "always, and its traces are lost", sandboxes: live, change: []func(*situation){func(s *situation) {
			s.pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://x", RestartCount: 4}}
		}}, want: "start main/5"},

		{name: "first init container", sandboxes: live, change: []func(*situation){withInit("i1", "i2")}, want: "start i1/0"},
		{name: "init container runs", sandboxes: live, observed: all{runsNow("i1", 0)}, change: []func(*situation){withInit("i1", "i2")}, want: ""},
		{name: "second init container", sandboxes: live, observed: all{ran("i1", 0, 0)}, change: []func(*situation){withInit("i1", "i2")}, want: "start i2/0"},
		{name: "initialized", sandboxes: live, observed: all{ran("i2", 0, 0), ran("i1", 0, 0)}, change: []func(*situation){withInit("i1", "i2")}, want: "start main/0"},
		{name: "init container failed", sandboxes: live, observed: all{ran("i1", 0, 1)}, change: []func(*situation){withInit("i1")}, want: "start i1/1"},
		{name: "init container failed for good", sandboxes: live, observed: all{ran("i1", 0, 1)}, change: []func(*situation){withInit("i1"), withPolicy("Never")}, want: "drop s0, over"},
		{name: "initialized once", sandboxes: live, observed: all{runsNow("main", 0)}, change: []func(*situation){withInit("i1")}, want: ""},
		{name: "sidecar first", sandboxes: live, change: []func(*situation){withInit("side", "i1")}, want: "start side/0"},
		{name: "sidecar runs", sandboxes: live, observed: all{runsNow("side", 0)}, change: []func(*situation){withInit("side", "i1")}, want: "start i1/0"},
		{name: "sidecar ended", sandboxes: live, observed: all{runsNow("main", 0), ran("side", 0, 0)}, change: []func(*situation){withInit("side"), withPolicy("Never")}, want: "start side/1"},
		{name: "sidecar is not needed any more", sandboxes: live, observed: all{ran("main", 0, 0), runsNow("side", 0)}, change: []func(*situation){withInit("side"), withPolicy("Never")}, want: "stop side0 30s"},

		{name: "sandbox died", sandboxes: dead, observed: all{ran("main", 0, 137)}, want: "sandbox 1, drop s0"},
		{name: "sandbox died under a container", sandboxes: dead, observed: all{runsNow("main", 0)}, want: "stop main0 30s"},
		{name: "sandbox died, never", sandboxes: dead, observed: all{ran("main", 0, 137)}, change: []func(*situation){withPolicy("Never")}, want: "drop s0, over"},
		{name: "sandbox is new", sandboxes: both, observed: all{ran("main", 0, 137), ran("i1", 0, 0)}, change: []func(*situation){withInit("i1"), func(s *situation) { s.stopped["s0"] = true }}, want: "start i1/1"},
		{name: "sandbox is new and initialized", sandboxes: both, observed: all{in("s1", ran("i1", 1, 0)), ran("main", 0, 137)}, change: []func(*situation){withInit("i1"), func(s *situation) { s.stopped["s0"] = true }}, want: "start main/1"},
		{name: "old sandbox is empty", sandboxes: both, observed: all{in("s1", runsNow("main", 2)), in("s1", ran("main", 1, 0))},
			change: []func(*situation){func(s *situation) { s.stopped["s0"] = true }}, want: "gone s0"},

		{name: "image changed", sandboxes: live, observed: all{runsNow("main", 0)}, change: []func(*situation){func(s *situation) { s.changed["main"] = "main0" }}, want: "stop main0 30s"},
		{name: "image changed, ended", sandboxes: live, observed: all{ran("main", 0, 0)}, change: []func(*situation){withPolicy("Never"), func(s *situation) { s.changed["main"] = "main0" }}, want: "start main/1"},

		{name: "before the deadline", sandboxes: live, observed: all{runsNow("main", 0)}, change: []func(*situation){func(s *situation) { s.pod.Spec.ActiveDeadlineSeconds = ptr.To[int64](90) }}, want: "wake 30s"},
		{name: "deadline", sandboxes: live, observed: all{runsNow("main", 0)}, change: []func(*situation){func(s *situation) { s.pod.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }}, want: "stop main0 30s, fail DeadlineExceeded"},
		{name: "deadline after the end", sandboxes: dead, observed: all{ran("main", 0, 0)}, change: []func(*situation){withPolicy("Never"), func(s *situation) { s.pod.Spec.ActiveDeadlineSeconds = ptr.To[int64](60); s.stopped["s0"] = true }}, want: "over"},
		{name: "refused", change: []func(*situation){func(s *situation) { s.failure = &failure{} }}, want: "over"},

		{name: "deleted", sandboxes: live, observed: all{runsNow("main", 0)}, change: []func(*situation){deleted(30, 0)}, want: "stop main0 30s"},
		{name: "deleted a while ago", sandboxes: live, observed: all{runsNow("main", 0)}, change: []func(*situation){deleted(30, 20)}, want: "stop main0 11s"},
		{name: "deleted long ago", sandboxes: live, observed: all{runsNow("main", 0)}, change: []func(*situation){deleted(30, 99)}, want: "stop main0 0s"},
		{name: "deleted: now", sandboxes: live, observed: all{runsNow("main", 0)}, change: []func(*situation){deleted(1, 1)}, want: "stop main0 1s"},
		{name: "deleted: sidecars wait", sandboxes: live, observed: all{runsNow("main", 0), runsNow("side2", 0), runsNow("side1", 0)}, change: []func(*situation){withInit("side1", "side2"), deleted(30, 0)}, want: "stop main0 30s"},
		{name: "deleted: last sidecar", sandboxes: live, observed: all{ran("main", 0, 0), runsNow("side2", 0), runsNow("side1", 0)}, change: []func(*situation){withInit("side1", "side2"), deleted(30, 0)}, want: "stop side20 30s"},
		{name: "gone", sandboxes: live, observed: all{runsNow("main", 0), runsNow("side1", 0)}, change: []func(*situation){withInit("side1"), func(s *situation) { s.ending, s.killed = true, true }}, want: "stop main0 0s, stop side10 0s"},
		{name: "deleted and ended", sandboxes: live, observed: all{ran("main", 0, 1)}, change: []func(*situation){deleted(30, 0)}, want: ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &situation{pod: aPod(), observed: cri.Pod{Sandboxes: test.sandboxes, Containers: test.observed}, now: t0, started: t0.Add(-time.Minute), memory: newMemory()}
			for _, f := range test.change {
				f(s)
			}
			p := decide(s)
			if got := p.text(); got != test.want {
				t.Errorf("decided %q, want %q", got, test.want)
			}
		})
	}
}

func TestRestartBackOff(t *testing.T) {
	t.Parallel()
	now := t0
	var r restart
	var delays []time.Duration
	for range 8 {
		ended := now.Add(time.Second)
		at := r.due(ended)
		if at.IsZero() {
			at = ended
		}
		delays = append(delays, at.Sub(ended))
		now = at
		r = r.next(ended, now)
	}
	if got, want := fmt.Sprint(delays), "[0s 10s 20s 40s 1m20s 2m40s 5m0s 5m0s]"; got != want {
		t.Errorf("delays %s, want %s", got, want)
	}
	for restarts, want := range map[uint32]time.Duration{0: 0, 1: 10 * time.Second, 2: 20 * time.Second, 5: 160 * time.Second, 6: maxRestartDelay, 4000000000: maxRestartDelay} {
		if got := restartSoFar(restarts, t0).delay; got != want {
			t.Errorf("%d restarts: %v, want %v", restarts, got, want)
		}
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	var r retry
	for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
		r.failed(t0, backoffLimits{time.Second, 5 * time.Second}, 0)
		if r.until.Sub(t0) != want || !r.mustWait(t0) || r.mustWait(r.until) {
			t.Errorf("until %v, want %v", r.until.Sub(t0), want)
		}
	}
	if r.failed(t0, backoffLimits{time.Second, 5 * time.Second}, 1); r.until.Sub(t0) != 5500*time.Millisecond {
		t.Errorf("with jitter until %v", r.until.Sub(t0))
	}
}
