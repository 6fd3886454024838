package pod

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/podvalidation"
)

// minimal returns a pod with one container.
func minimal() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"},
		Spec:       corev1.PodSpec{ServiceAccountName: "default", Containers: []corev1.Container{{Name: "main", Image: "registry.example/web:1"}}},
	}
}

func both(edits ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, edit := range edits {
			edit(p)
		}
	}
}

var tableNow = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(tableNow.Add(-d)) }

func container(name string, ready bool, state corev1.ContainerState) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Ready: ready, State: state}
}

func waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

func terminated(reason string, code, signal int32) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code, Signal: signal}}
}

var isRunning = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}

// TestRow compares the columns Ready, Status and Restarts with those that kubectl get pods shows for the same pods.
func TestRow(t *testing.T) {
	t.Parallel()
	status := func(phase corev1.PodPhase, statuses ...corev1.ContainerStatus) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.Phase, p.Status.ContainerStatuses = phase, statuses }
	}
	initStatus := func(statuses ...corev1.ContainerStatus) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Phase, p.Status.InitContainerStatuses = corev1.PodPending, statuses
			for _, s := range statuses {
				p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: s.Name})
			}
		}
	}
	sidecar := func(p *corev1.Pod) {
		p.Spec.InitContainers[0].RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		p.Status.InitContainerStatuses[0].Started = ptr.To(true)
	}
	restarted := func(c corev1.ContainerStatus, n int32, since time.Duration) corev1.ContainerStatus {
		c.RestartCount = n
		c.LastTerminationState = terminated("Error", 1, 0)
		c.LastTerminationState.Terminated.FinishedAt = ago(since)
		return c
	}
	condition := func(t corev1.PodConditionType, s corev1.ConditionStatus, reason string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: t, Status: s, Reason: reason})
		}
	}
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(ago(0)) }
	for name, c := range map[string]struct {
		mutate func(*corev1.Pod)
		want   [3]string
	}{
		"pending":           {status(corev1.PodPending), [3]string{"0/1", "Pending", "0"}},
		"creating":          {status(corev1.PodPending, container("main", false, waiting("ContainerCreating"))), [3]string{"0/1", "ContainerCreating", "0"}},
		"running":           {status(corev1.PodRunning, container("main", true, isRunning)), [3]string{"1/1", "Running", "0"}},
		"not ready":         {status(corev1.PodRunning, container("main", false, isRunning)), [3]string{"0/1", "Running", "0"}},
		"crashing":          {status(corev1.PodRunning, restarted(container("main", false, waiting("CrashLoopBackOff")), 3, 5*time.Minute)), [3]string{"0/1", "CrashLoopBackOff", "3 (5m ago)"}},
		"restarts undated":  {status(corev1.PodRunning, corev1.ContainerStatus{Name: "main", Ready: true, State: isRunning, RestartCount: 2}), [3]string{"1/1", "Running", "2"}},
		"completed":         {status(corev1.PodSucceeded, container("main", false, terminated("Completed", 0, 0))), [3]string{"0/1", "Completed", "0"}},
		"exit code":         {status(corev1.PodFailed, container("main", false, terminated("", 3, 0))), [3]string{"0/1", "ExitCode:3", "0"}},
		"signal":            {status(corev1.PodFailed, container("main", false, terminated("", 137, 9))), [3]string{"0/1", "Signal:9", "0"}},
		"evicted":           {func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }, [3]string{"0/1", "Evicted", "0"}},
		"first of two":      {status(corev1.PodRunning, container("a", false, waiting("First")), container("b", false, waiting("Second"))), [3]string{"0/1", "First", "0"}},
		"one done":          {both(status(corev1.PodRunning, container("a", false, terminated("Completed", 0, 0)), container("b", true, isRunning)), condition(corev1.PodReady, "True", "")), [3]string{"1/1", "Running", "0"}},
		"one done, unready": {status(corev1.PodRunning, container("a", false, terminated("Completed", 0, 0)), container("b", true, isRunning)), [3]string{"1/1", "NotReady", "0"}},
		"terminating":       {both(status(corev1.PodRunning, container("main", true, isRunning)), deleted), [3]string{"1/1", "Terminating", "0"}},
		"deleted when done": {both(status(corev1.PodSucceeded, container("main", false, terminated("Completed", 0, 0))), deleted), [3]string{"0/1", "Completed", "0"}},
		"node lost":         {both(status(corev1.PodRunning), deleted, func(p *corev1.Pod) { p.Status.Reason = "NodeLost" }), [3]string{"0/1", "Unknown", "0"}},
		"gated":             {both(status(corev1.PodPending), condition(corev1.PodScheduled, "False", "SchedulingGated")), [3]string{"0/1", "SchedulingGated", "0"}},
		"init 1 of 2":       {initStatus(container("a", false, terminated("Completed", 0, 0)), container("b", false, isRunning)), [3]string{"0/1", "Init:1/2", "0"}},
		"init waits":        {initStatus(container("a", false, waiting("PodInitializing"))), [3]string{"0/1", "Init:0/1", "0"}},
		"init pulls":        {initStatus(container("a", false, waiting("ErrImagePull"))), [3]string{"0/1", "Init:ErrImagePull", "0"}},
		"init failed":       {initStatus(restarted(container("a", false, terminated("Error", 1, 0)), 1, time.Hour)), [3]string{"0/1", "Init:Error", "1 (60m ago)"}},
		"init exit code":    {initStatus(container("a", false, terminated("", 2, 0))), [3]string{"0/1", "Init:ExitCode:2", "0"}},
		"init restarts are forgotten": {both(initStatus(restarted(container("a", false, terminated("Completed", 0, 0)), 4, time.Hour)),
			status(corev1.PodRunning, container("main", true, isRunning))), [3]string{"1/1", "Running", "0"}},
		"sidecar": {both(initStatus(restarted(container("a", true, isRunning), 2, time.Minute)), sidecar,
			status(corev1.PodRunning, container("main", true, isRunning))), [3]string{"2/2", "Running", "2 (60s ago)"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := minimal()
			c.mutate(pod)
			row := Row(pod, tableNow)
			if got := [3]string{row[1].(string), row[2].(string), row[3].(string)}; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestRowHasEachColumn(t *testing.T) {
	t.Parallel()
	pod := minimal()
	pod.CreationTimestamp = ago(26 * time.Hour)
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.7"}},
		ContainerStatuses: []corev1.ContainerStatus{container("main", true, isRunning)},
		Conditions:        []corev1.PodCondition{{Type: "a", Status: "True"}, {Type: "b", Status: "False"}}}
	pod.Spec.NodeName = "n1"
	pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "a"}, {ConditionType: "b"}}
	got := map[string]any{}
	for i, cell := range Row(pod, tableNow) {
		got[Columns[i].Name] = cell
	}
	want := map[string]any{"Name": "web", "Ready": "1/1", "Status": "Running", "Restarts": "0", "Age": "26h",
		"IP": "10.0.0.7", "Node": "n1", "Nominated Node": "<none>", "Readiness Gates": "1/2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if age := Row(minimal(), tableNow)[4]; age != "<unknown>" {
		t.Errorf("age of a pod without creation time: got %v", age)
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	pod := minimal()
	pod.Spec.NodeName, pod.Spec.HostNetwork = "n1", true
	podvalidation.SetDefaults(pod)
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", NominatedNodeName: "n2"}
	want := map[string]string{"metadata.name": "web", "metadata.namespace": "shop", "spec.nodeName": "n1",
		"spec.restartPolicy": "Always", "spec.schedulerName": "default-scheduler", "spec.serviceAccountName": "default",
		"spec.hostNetwork": "true", "status.phase": "Running", "status.podIP": "10.0.0.1", "status.nominatedNodeName": "n2"}
	if diff := cmp.Diff(want, map[string]string(Fields(pod))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// FuzzRow prints, and reads the selectable fields of, any pod that can be decoded.
func FuzzRow(f *testing.F) {
	for _, seed := range []*corev1.Pod{{}, minimal()} {
		text, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var pod corev1.Pod
		if json.Unmarshal(text, &pod) != nil {
			return
		}
		Fields(&pod)
		Row(&pod, time.Time{})
		podvalidation.SetDefaults(&pod)
		Fields(&pod)
		Row(&pod, time.Time{})
	})
}
