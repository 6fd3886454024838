//go:build linux

package node

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"lanyard.dev/lanyardtest"
)

// TestNodeWithoutRuntime has the node say why it runs no pods, and live on by its Lease, where an agent is started while its
// runtime is away.
func TestNodeWithoutRuntime(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("an agent needs root")
	}
	authority := lanyardtest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{
			Kubeconfig: authority.Kubeconfig(), NodeName: "edge-7", NodeIP: net.IPv4(127, 0, 0, 1), MaxPods: 1, RootDir: filepath.Join(t.TempDir(), "agent"),
			RuntimeEndpoint: "unix://" + filepath.Join(t.TempDir(), "none.sock"),
		})
	}()
	nodes, err := authority.Client().CoreV1().Nodes().Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=edge-7"})
	if err != nil {
		t.Fatal(err)
	}
	defer nodes.Stop()
	if said := awaitReady(t, nodes.ResultChan()); said.Status != corev1.ConditionFalse || !strings.Contains(said.Message, "container runtime is down") {
		t.Errorf("the node says %+v", said)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the agent ended with %v", err)
	}
}

// awaitReady returns what a node first says of whether it is ready.
func awaitReady(t *testing.T, events <-chan watch.Event) corev1.NodeCondition {
	t.Helper()
	for event := range events {
		node, ok := event.Object.(*corev1.Node)
		if !ok {
			t.Fatalf("watch: %+v", event.Object)
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				return condition
			}
		}
	}
	t.Fatal("the node was never registered")
	return corev1.NodeCondition{}
}
