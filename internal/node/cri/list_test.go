//go:build linux

package cri

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// counting is a runtime in memory that counts the calls to it.
type counting struct {
	internalapi.RuntimeService
	sandboxes  []*runtimeapi.PodSandbox
	containers []*runtimeapi.Container
	calls      int
	killed     *runtimeapi.ContainerStatus
}

func (c *counting) ListPodSandbox(context.Context, *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	c.calls++
	return c.sandboxes, nil
}

func (c *counting) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	c.calls++
	return c.containers, nil
}

func (c *counting) PodSandboxStatus(_ context.Context, id string, _ bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	c.calls++
	for _, item := range c.sandboxes {
		if item.Id == id {
			return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{Id: id, State: item.State, Labels: item.Labels}}, nil
		}
	}
	return nil, fmt.Errorf("no sandbox %s", id)
}

func (c *counting) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	c.calls++
	for _, item := range c.containers {
		if c.killed != nil && item.Id == c.killed.Id {
			return &runtimeapi.ContainerStatusResponse{Status: c.killed}, nil
		}
		if item.Id == id {
			return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{Id: id, State: item.State, Labels: item.Labels, StartedAt: 1, ExitCode: 5}}, nil
		}
	}
	return nil, fmt.Errorf("no container %s", id)
}

// manyPods returns a runtime with n pods of one container each.
func manyPods(n int) (*Runtime, *counting) {
	c := &counting{}
	for i := range n {
		labels := map[string]string{agentLabel: "me", kubelettypes.KubernetesPodUIDLabel: fmt.Sprint(i), kubelettypes.KubernetesContainerNameLabel: "main"}
		c.sandboxes = append(c.sandboxes, &runtimeapi.PodSandbox{Id: fmt.Sprintf("s%d", i), Labels: labels, Metadata: &runtimeapi.PodSandboxMetadata{}})
		c.containers = append(c.containers, &runtimeapi.Container{
			Id: fmt.Sprintf("c%d", i), PodSandboxId: fmt.Sprintf("s%d", i), Labels: labels, Metadata: &runtimeapi.ContainerMetadata{}, State: runtimeapi.ContainerState_CONTAINER_RUNNING,
		})
	}
	return &Runtime{config: Config{AgentID: "me"}, rpc: c}, c
}

// TestListingCost counts the calls for 200 pods: for the first list, for a later one, and after a container has ended.
func TestListingCost(t *testing.T) {
	t.Parallel()
	r, c := manyPods(200)
	foreign := &runtimeapi.Container{Id: "foreign", Labels: map[string]string{agentLabel: "you", kubelettypes.KubernetesPodUIDLabel: "x"}}
	c.containers = append(c.containers, foreign)
	for _, step := range []struct {
		change func()
		calls  int
	}{
		{func() {}, 402},
		{func() {}, 2},
		{func() { c.containers[3].State = runtimeapi.ContainerState_CONTAINER_EXITED }, 3},
		{func() { c.sandboxes[3].State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY }, 2},
		{func() {}, 2},
	} {
		step.change()
		c.calls = 0
		pods, err := r.Pods(t.Context())
		if err != nil || len(pods) != 200 || c.calls != step.calls {
			t.Errorf("%d pods, %d calls, want %d; %v", len(pods), c.calls, step.calls, err)
		}
	}
	pods, err := r.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		if ended := pod.Containers[0]; pod.UID == "3" && (ended.State != Exited || ended.ExitCode != 5 || pod.Sandboxes[0].Ready) {
			t.Errorf("the pod that ended is %+v", pod)
		}
	}
}

// TestLateReason checks that a reason is noticed that the runtime reports after the end of the container.
func TestLateReason(t *testing.T) {
	t.Parallel()
	r, c := manyPods(1)
	c.containers[0].State = runtimeapi.ContainerState_CONTAINER_EXITED
	c.killed = &runtimeapi.ContainerStatus{Id: "c0", State: runtimeapi.ContainerState_CONTAINER_EXITED, Labels: c.containers[0].Labels, ExitCode: 137, Reason: "Error"}
	for _, step := range []struct {
		reason, want string
		calls        int
	}{
		{"Error", "Error", 4}, {"Error", "Error", 3}, {"OOMKilled", "OOMKilled", 3}, {"Error", "OOMKilled", 2},
	} {
		c.calls, c.killed.Reason, c.killed.FinishedAt = 0, step.reason, time.Now().UnixNano()
		pods, err := r.Pods(t.Context())
		if err != nil || pods[0].Containers[0].Reason != step.want || c.calls != step.calls {
			t.Errorf("%+v, %d calls, %v; want %+v", pods, c.calls, err, step)
		}
	}
	long := &Container{State: Exited, ExitCode: 137, Reason: "Error", FinishedAt: time.Now().Add(-settleTime - time.Second)}
	if !settled(long, time.Now()) {
		t.Error("the status of a container that was killed long ago is requested again")
	}
}

func TestNewestFirst(t *testing.T) {
	t.Parallel()
	r, c := manyPods(1)
	for i, attempt := range []uint32{2, 1, 3} {
		again := &runtimeapi.Container{Id: fmt.Sprintf("again%d", attempt), Labels: c.containers[0].Labels, Metadata: &runtimeapi.ContainerMetadata{Attempt: attempt}, CreatedAt: 10}
		if i == 2 {
			again.CreatedAt = 5 // as after the clock was set back
		}
		c.containers = append(c.containers, again)
	}
	pods, err := r.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, container := range pods[0].Containers {
		order = append(order, container.ID)
	}
	if got := strings.Join(order, " "); got != "again2 again1 again3 c0" {
		t.Errorf("order %s", got)
	}
}

func BenchmarkPods(b *testing.B) {
	r, _ := manyPods(200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Pods(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
