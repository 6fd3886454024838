//go:build linux

package pod

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/node/cri"
	"lanyard.dev/internal/node/nodetest"
)

// onContainerd returns a node whose containers run on a real containerd. Its other parts are the fakes of the other tests.
func onContainerd(t *testing.T) *node {
	t.Helper()
	nodetest.Require(t)
	c := nodetest.Start(t)
	r, err := cri.Dial(t.Context(), cri.Config{Endpoint: c.Endpoint(), AgentID: "agent-" + uuid.NewString(), LogDir: filepath.Join(c.Dir(), "logs")})
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	n.stop()
	config := n.pods.Config
	config.Runtime, config.Clock, config.Metrics, config.Root = r, clock.RealClock{}, nil, filepath.Join(c.Dir(), "pods")
	n.pods = New(config)
	n.pods.Synced()
	n.api.watcher = n.pods
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.pods.Run(ctx, "containerd") }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// awaitReal waits in real time until the condition holds.
func (n *node) awaitReal(what string, condition func() bool) {
	n.t.Helper()
	err := wait.PollUntilContextTimeout(n.t.Context(), 10*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) { return condition(), nil })
	if err != nil {
		n.t.Fatalf("%s: did not happen; status %+v, events:\n%s", what, n.api.get("web"), strings.Join(n.events.all(), "\n"))
	}
}

func TestOnContainerd(t *testing.T) {
	t.Parallel()
	n := onContainerd(t)
	tool := nodetest.Tool().Name
	n.apply(aPod(func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "prepare", Image: tool, Args: []string{"cat", "/etc/hosts"}}}
		main := &p.Spec.Containers[0]
		main.Image, main.Args = tool, []string{"write", "/dev/termination-log", "$(WORDS)", ";", "exit", "3"}
		main.Env = []corev1.EnvVar{{Name: "WORDS", Value: "no database"}}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Image: tool, Args: []string{"sleep"}})
	}))
	n.awaitReal("main crashes twice", func() bool {
		return waitsFor("CrashLoopBackOff")(&n.api.get("web").Status) && n.api.get("web").Status.ContainerStatuses[0].RestartCount == 1
	})
	status := n.api.get("web").Status
	if last := status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 3 || last.Message != "no database" || last.Reason != "Error" {
		t.Errorf("last state %+v", last)
	}
	if other := status.ContainerStatuses[1]; other.State.Running == nil || other.ImageID == "" || status.PodIP == "" || status.Phase != corev1.PodRunning {
		t.Errorf("status %+v", status)
	}
	began := time.Now()
	n.delete("web", 1)
	n.awaitReal("object is gone", func() bool { return n.api.get("web") == nil })
	t.Logf("gone after %v", time.Since(began))
	n.awaitReal("nothing is left", func() bool { return len(n.pods.known()) == 0 })
}
