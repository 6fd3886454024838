//go:build linux

package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
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

// TestSecondAgentOfOneName: it ends with an error that says what to do, and the first does not notice. The first comes back at
// once after its own end.
func TestSecondAgentOfOneName(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("an agent needs root")
	}
	authority := lanyardtest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	start := func(ctx context.Context, root string) <-chan error {
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, Options{
				Kubeconfig: authority.Kubeconfig(), NodeName: "twin", NodeIP: net.IPv4(127, 0, 0, 1), MaxPods: 1, RootDir: root,
				RuntimeEndpoint: "unix://" + filepath.Join(root, "none.sock"),
			})
		}()
		return ended
	}
	leases := authority.Client().CoordinationV1().Leases(corev1.NamespaceNodeLease)
	await := func(what string, done func(*coordinationv1.Lease) bool) {
		t.Helper()
		for {
			if found, err := leases.Get(ctx, "twin", metav1.GetOptions{}); err == nil && done(found) {
				return
			}
			select {
			case <-ctx.Done():
				t.Fatalf("%s: not in time", what)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	root := filepath.Join(t.TempDir(), "first")
	one, end := context.WithCancel(ctx)
	first := start(one, root)
	await("the first registers", func(l *coordinationv1.Lease) bool { return l.Annotations[agentAnnotation] != "" })
	second := start(ctx, filepath.Join(t.TempDir(), "second"))
	var refused error
	await("the second ends", func(l *coordinationv1.Lease) bool {
		select {
		case refused = <-second:
			return true
		case err := <-first:
			t.Fatalf("the first ended: %v", err)
		default:
			// As the first does every ten seconds, for which this test does not wait.
			l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
			_, _ = leases.Update(ctx, l, metav1.UpdateOptions{})
		}
		return false
	})
	if fault := (*Error)(nil); !errors.As(refused, &fault) || !strings.Contains(fault.Hint(), "--node-name") {
		t.Errorf("the second ended with %v", refused)
	}
	end()
	if err := <-first; err != nil {
		t.Errorf("the first ended with %v", err)
	}
	last, err := leases.Get(ctx, "twin", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	again, stop := context.WithCancel(ctx)
	first = start(again, root)
	await("the first comes back", func(l *coordinationv1.Lease) bool { return l.ResourceVersion != last.ResourceVersion })
	if waited := time.Since(began); waited > silence {
		t.Errorf("the first came back after %v, as if the Lease were another's", waited)
	}
	stop()
	if err := <-first; err != nil {
		t.Errorf("the first ended with %v", err)
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
