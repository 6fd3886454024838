package pod

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/cri"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/podannotation"
)

func TestPodRuns(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "prepare", Image: "init:1"}}
	}))
	n.runtime.change(func() { n.runtime.programs["prepare"] = program{runs: time.Second} })
	pod := n.awaitPod("pod is ready", "web", func(s *corev1.PodStatus) bool {
		i := findCondition(s, corev1.PodReady)
		return i >= 0 && s.Conditions[i].Status == corev1.ConditionTrue
	})
	s := pod.Status
	if s.Phase != corev1.PodRunning || s.PodIP == "" || s.HostIP != "192.0.2.1" || s.QOSClass != corev1.PodQOSBestEffort || s.ObservedGeneration != 1 {
		t.Errorf("status %+v", s)
	}
	c := s.ContainerStatuses[0]
	if !strings.HasPrefix(c.ContainerID, "containerd://container") || c.State.Running == nil || !c.Ready || !*c.Started || c.ImageID != "id-of-app:1" {
		t.Errorf("container status %+v", c)
	}
	init := s.InitContainerStatuses[0]
	if init.State.Terminated == nil || init.State.Terminated.Reason != "Completed" || !init.Ready || *init.Started {
		t.Errorf("init container status %+v", init)
	}
	for _, event := range []string{
		`Normal Pulled spec.containers{main}: Container image "app:1" already present on machine and can be accessed by the pod`,
		"Normal Created spec.initContainers{prepare}: Container created", "Normal Started spec.containers{main}: Container started",
	} {
		if !n.events.has(event) {
			t.Errorf("no event %q in %q", event, n.events.all())
		}
	}
	if up := n.journal.index("sandbox up true"); up < 0 || up > n.journal.index("start prepare") {
		t.Errorf("OnSandbox was not called before something ran in the sandbox: %q", n.journal.all())
	}
	if found, sandbox, ok := n.pods.Find("default", "web"); !ok || found.UID != "uid-1" || sandbox == "" {
		t.Errorf("found %+v in %q", found, sandbox)
	}
}

// TestIdlePodCausesNoWork checks that, for a running pod, the agent writes nothing and only lists the runtime's pods.
func TestIdlePodCausesNoWork(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	patches, lines := 0, 0
	for round := range 2 {
		until := n.clock.Now().Add(time.Minute)
		n.await("a minute passes", func() bool { return n.clock.Now().After(until) })
		n.api.mu.Lock()
		p, l := n.api.patches, len(n.journal.all())
		n.api.mu.Unlock()
		if round > 0 && (p != patches || l != lines) {
			t.Errorf("%d patches and %d calls while nothing happened", p-patches, l-lines)
		}
		patches, lines = p, l
	}
}

func TestCrashLoop(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.runtime.programs["main"] = program{runs: time.Second, code: 3, message: "no database"}
	n.apply(aPod())
	pod := n.awaitPod("third crash", "web", func(s *corev1.PodStatus) bool {
		return waitsFor("CrashLoopBackOff")(s) && s.ContainerStatuses[0].RestartCount == 2
	})
	c := pod.Status.ContainerStatuses[0]
	if want := "back-off 20s restarting failed container=main pod=web_default(uid-1)"; c.State.Waiting.Message != want {
		t.Errorf("waits with %q, want %q", c.State.Waiting.Message, want)
	}
	if last := c.LastTerminationState.Terminated; last == nil || last.ExitCode != 3 || last.Reason != "Error" || last.Message != "no database" {
		t.Errorf("last state %+v", last)
	}
	if !n.events.has("Warning BackOff spec.containers{main}: Back-off restarting failed container main in pod web_default(uid-1)") {
		t.Errorf("events %q", n.events.all())
	}
	n.await("sixth start", func() bool {
		n.runtime.mu.Lock()
		defer n.runtime.mu.Unlock()
		return len(n.runtime.started["main"]) >= 6
	})
	n.runtime.mu.Lock()
	defer n.runtime.mu.Unlock()
	for i, want := range []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second} {
		pause := n.runtime.started["main"][i+1].Sub(n.runtime.started["main"][i]) - time.Second
		if pause < want || pause > want+4*time.Second {
			t.Errorf("restart %d after %v, want %v", i+1, pause, want)
		}
	}
	if kept := len(n.runtime.pods["uid-1"].Containers); kept > 3 {
		t.Errorf("%d runs are kept", kept)
	}
}

func TestPodEndsByItself(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		policy corev1.RestartPolicy
		codes  [2]int32
		want   corev1.PodPhase
		reason string
	}{
		{"both well", corev1.RestartPolicyNever, [2]int32{0, 0}, corev1.PodSucceeded, "Completed"},
		{"one failed", corev1.RestartPolicyNever, [2]int32{1, 0}, corev1.PodFailed, "Error"},
		{"well on failure", corev1.RestartPolicyOnFailure, [2]int32{0, 0}, corev1.PodSucceeded, "Completed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.runtime.programs["main"] = program{runs: time.Second, code: test.codes[0]}
			n.runtime.programs["other"] = program{runs: 3 * time.Second, code: test.codes[1]}
			n.apply(aPod(func(p *corev1.Pod) {
				p.Spec.RestartPolicy = test.policy
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Image: "app:1"})
			}))
			pod := n.awaitPod("pod ends", "web", isPhase(test.want))
			if got := pod.Status.ContainerStatuses[0].State.Terminated; got == nil || got.Reason != test.reason || got.ExitCode != test.codes[0] {
				t.Errorf("state %+v", got)
			}
			if pod.Status.PodIP == "" {
				t.Error("the address was forgotten")
			}
			n.await("volumes go, containers stay", func() bool { return n.journal.count("tear down uid-1") == 1 && n.journal.count("stop sandbox") > 0 })
			if n.journal.count("remove main") > 0 {
				t.Error("the container is gone before its pod")
			}
			n.delete("web", 0)
			n.await("nothing is left", n.isIdle)
		})
	}
}

func TestOOMKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.runtime.programs["main"] = program{runs: time.Second, code: 137, reason: "OOMKilled", logs: strings.Repeat("x", 5000) + "the end"}
	n.apply(aPod(func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	}))
	got := n.awaitPod("pod ends", "web", isPhase(corev1.PodFailed)).Status.ContainerStatuses[0].State.Terminated
	if got.Reason != "OOMKilled" || !strings.HasSuffix(got.Message, "the end") || len(got.Message) != fallbackLogBytes {
		t.Errorf("reason %q with %d bytes", got.Reason, len(got.Message))
	}
}

func TestImageFails(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.runtime.absent["app:1"] = &cri.ImageError{Reason: cri.ErrImagePull, Message: "no such host"}
	n.apply(aPod())
	n.awaitPod("error is shown", "web", waitsFor("ErrImagePull"))
	pod := n.awaitPod("back-off is shown", "web", waitsFor("ImagePullBackOff"))
	if got, want := pod.Status.ContainerStatuses[0].State.Waiting.Message, `Back-off pulling image "app:1": ErrImagePull: no such host`; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	for _, event := range []string{
		`Normal Pulling spec.containers{main}: Pulling image "app:1"`, `Warning Failed spec.containers{main}: Failed to pull image "app:1": no such host`,
		"Warning Failed spec.containers{main}: Error: ErrImagePull", `Normal BackOff spec.containers{main}: Back-off pulling image "app:1"`,
	} {
		if !n.events.has(event) {
			t.Errorf("no event %q", event)
		}
	}
	until := n.clock.Now().Add(55 * time.Second)
	n.await("a minute passes", func() bool { return n.clock.Now().After(until) })
	if pulls := n.journal.count("pull app:1 failed"); pulls != 3 { // at 0, 10 and 30 s
		t.Errorf("pulled %d times in a minute", pulls)
	}
}

// TestImageIsImportedDuringBackOff imports an image 80 seconds before the next pull. A container uses it at once,
// unless its pull policy is Always.
func TestImageIsImportedDuringBackOff(t *testing.T) {
	t.Parallel()
	for policy, limit := range map[corev1.PullPolicy]time.Duration{
		corev1.PullIfNotPresent: 10 * time.Second, corev1.PullNever: 10 * time.Second, corev1.PullAlways: 2 * time.Minute,
	} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.runtime.absent["app:1"] = &cri.ImageError{Reason: cri.ErrImagePull, Message: "no such host"}
			n.apply(aPod(func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = policy }))
			const tries = 4 // at 0, 10, 30 and 70 s
			n.await("a long delay", func() bool { return n.journal.count("pull app:1 failed") == tries })
			imported := n.clock.Now()
			n.runtime.change(func() { clear(n.runtime.absent) })
			n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
			switch took := n.clock.Now().Sub(imported); {
			case took > limit:
				t.Errorf("noticed after %v, want %v", took, limit)
			case policy == corev1.PullAlways && took < time.Minute:
				t.Errorf("pulled again after %v, in spite of the back-off", took)
			}
		})
	}
}

func TestMissingSecret(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) {
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{
			SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}, Key: "password"}}}}
	}))
	pod := n.awaitPod("error is shown", "web", waitsFor("CreateContainerConfigError"))
	if got := pod.Status.ContainerStatuses[0].State.Waiting.Message; got != `secret "db" not found` {
		t.Errorf("message %q", got)
	}
	n.objects.mu.Lock()
	n.objects.secrets["default/db"] = &corev1.Secret{Data: map[string][]byte{"password": []byte("hunter2")}}
	n.objects.mu.Unlock()
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	for _, event := range n.events.all() {
		if strings.Contains(event, "hunter2") {
			t.Errorf("event %q contains a secret", event)
		}
	}
}

// TestObjectChangeEndsTheBackOff creates the missing secret of a container during its back-off. The container is started at
// once: the clock stands still.
func TestObjectChangeEndsTheBackOff(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("db")}}}
	}))
	n.awaitPod("error is shown", "web", waitsFor("CreateContainerConfigError"))
	n.objects.mu.Lock()
	n.objects.secrets["default/db"] = &corev1.Secret{}
	n.objects.mu.Unlock()
	n.objects.onChange("default", nodeaccess.Reference{Kind: nodeaccess.Secret, Name: "db"})
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return n.journal.count("start main") == 1, nil
	})
	if err != nil {
		t.Errorf("the container was not started: %q", n.journal.all())
	}
}

func TestVolumesFail(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.volumes.fail = errors.New(`MountVolume.SetUp failed for volume "conf" : configmap "conf" not found`)
	n.apply(aPod())
	n.awaitPod("pod waits", "web", waitsFor("ContainerCreating"))
	n.await("event", func() bool { return n.events.has(`Warning FailedMount MountVolume.SetUp failed for volume "conf"`) })
	n.volumes.mu.Lock()
	n.volumes.fail = nil
	n.volumes.mu.Unlock()
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
}

func TestSandboxDies(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.runtime.kill("uid-1")
	n.awaitPod("pod runs again", "web", func(s *corev1.PodStatus) bool {
		return s.ContainerStatuses[0].RestartCount == 1 && s.ContainerStatuses[0].State.Running != nil
	})
	if n.journal.count("run sandbox 1") != 1 || n.journal.count("sandbox up false") != 1 || n.journal.count("sandbox up true") != 2 {
		t.Errorf("journal %q", n.journal.all())
	}
	if !n.events.has("Normal SandboxChanged Pod sandbox changed, it will be killed and re-created.") {
		t.Errorf("events %q", n.events.all())
	}
}

func TestUnsupportedPodFails(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = &corev1.Probe{} }))
	pod := n.awaitPod("pod failed", "web", isPhase(corev1.PodFailed))
	if pod.Status.Reason != "UnsupportedField" || !strings.Contains(pod.Status.Message, "spec.containers[0].livenessProbe") {
		t.Errorf("status %+v", pod.Status)
	}
	if !n.events.has("Warning UnsupportedField spec.containers[0].livenessProbe") {
		t.Errorf("events %q", n.events.all())
	}
	if n.journal.count("run sandbox 0") != 0 {
		t.Error("something of it was run")
	}
}

func TestActiveDeadline(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](20) }))
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	pod := n.awaitPod("pod failed", "web", isPhase(corev1.PodFailed))
	if pod.Status.Reason != "DeadlineExceeded" || n.clock.Since(t0) < 20*time.Second {
		t.Errorf("reason %q after %v", pod.Status.Reason, n.clock.Since(t0))
	}
	if n.journal.count("stop main 30s") != 1 {
		t.Errorf("journal %q", n.journal.all())
	}
}

func TestImageIsChanged(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	n.api.edit("web", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "app:2"; p.Generation = 2 })
	n.awaitPod("new image runs", "web", func(s *corev1.PodStatus) bool {
		return s.ContainerStatuses[0].Image == "app:2" && s.ContainerStatuses[0].State.Running != nil && s.ObservedGeneration == 2
	})
	if !n.events.has("Normal Killing spec.containers{main}: Container main definition changed, will be restarted") {
		t.Errorf("events %q", n.events.all())
	}
}

func TestPodFiles(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) {
		p.Spec.HostAliases = []corev1.HostAlias{{IP: "10.1.1.1", Hostnames: []string{"db", "db.local"}}}
	}))
	pod := n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	hosts, err := os.ReadFile(filepath.Join(n.root, "uid-1", "etc-hosts"))
	if err != nil || !strings.Contains(string(hosts), pod.Status.PodIP+"\tweb\n") || !strings.Contains(string(hosts), "10.1.1.1\tdb\tdb.local\n") {
		t.Errorf("hosts %q: %v", hosts, err)
	}
	for path, mode := range map[string]os.FileMode{"uid-1": 0o700, "uid-1/containers": 0o700, "uid-1/containers/main": 0o700, "uid-1/containers/main/0": 0o666} {
		if info, err := os.Stat(filepath.Join(n.root, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	n.delete("web", 1)
	n.await("nothing is left", n.isIdle)
	if _, err := os.Stat(filepath.Join(n.root, "uid-1")); !os.IsNotExist(err) {
		t.Errorf("the pod's directory: %v", err)
	}
}

func TestOthersPodsAreLeftAlone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) { p.Annotations = map[string]string{podannotation.Process: "true"} }))
	n.apply(aPod(func(p *corev1.Pod) { p.Name, p.UID, p.Spec.NodeName = "elsewhere", "uid-2", "other" }))
	n.apply(aPod(func(p *corev1.Pod) { p.Name, p.UID = "odd", "../../etc" }))
	n.apply(aPod(func(p *corev1.Pod) { p.Name, p.UID = "mine", "uid-3" }))
	n.awaitPod("my pod runs", "mine", isPhase(corev1.PodRunning))
	if got := n.pods.known(); len(got) != 1 || got[0] != "uid-3" {
		t.Errorf("workers for %v", got)
	}
}

// TestPresentImageDoesNotWait checks that a container whose image is present does not wait for the pulls of other images.
func TestPresentImageDoesNotWait(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for range cap(n.pods.pulls) {
		n.pods.pulls <- struct{}{}
	}
	n.apply(aPod())
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
}

// TestOnSandboxIsCalledAgain checks that OnSandbox is called again until it succeeds.
func TestOnSandboxIsCalledAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.refusals.Store(2)
	n.apply(aPod())
	n.await("called three times", func() bool { return n.journal.count("sandbox up true") == 3 })
	n.awaitPod("pod runs", "web", isPhase(corev1.PodRunning))
	for range 100 {
		n.clock.Step(relistPeriod)
	}
	if calls := n.journal.count("sandbox up true"); calls != 3 {
		t.Errorf("called %d times", calls)
	}
}

// TestForgottenPodIsNotRecordedAgain checks that the publisher does not record a pod whose status was written after it was forgotten.
func TestForgottenPodIsNotRecordedAgain(t *testing.T) {
	t.Parallel()
	p := newPublisher(nil, testingclock.NewFakeClock(t0))
	pod := aPod()
	p.observe(pod)
	p.forget(pod.UID)
	p.written(pod)
	if len(p.entries) != 0 {
		t.Errorf("entries %v", p.entries)
	}
}

// TestLongestGrace checks that a grace period that would overflow is long, and not zero.
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

// TestFoundPodKnowsOwnContainers checks that Find removes the IDs of other pods' containers from a status, which a user may
// have written.
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
	observed := &cri.Pod{Containers: []cri.Container{{Name: "main", ID: "own"}, {Name: "init", ID: "init"}, {Name: "other", ID: "other"}}}
	want := pod.Status.DeepCopy()
	want.ContainerStatuses[0].ContainerID, want.ContainerStatuses[0].State = "", corev1.ContainerState{}
	want.ContainerStatuses[1].LastTerminationState = corev1.ContainerState{}
	if diff := cmp.Diff(*want, withOwnContainersOnly(pod, observed).Status); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if pod.Status.ContainerStatuses[0].ContainerID == "" {
		t.Error("the pod itself was changed")
	}
}
