//go:build linux

package node

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"

	"lanyard.dev/internal/hint"
	"lanyard.dev/lanyardtest"
)

// TestNodeWithoutRuntime starts an agent whose runtime cannot be reached: the node is registered, and its Ready condition
// contains the reason why it runs no pods.
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
	if ready := awaitReady(t, nodes.ResultChan()); ready.Status != corev1.ConditionFalse || !strings.Contains(ready.Message, "container runtime is down") {
		t.Errorf("the node's condition is %+v", ready)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the agent ended with %v", err)
	}
}

// TestFailedStart has the start fail at an early and at a late step. Run must close all that it has opened before.
func TestFailedStart(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("an agent needs root")
	}
	authority := lanyardtest.Start(t)
	for name, test := range map[string]struct {
		portTaken bool
		change    func(*Options)
		want      string
	}{
		"the port is taken":             {true, func(*Options) {}, "listen for logs and exec"},
		"there is no certificate":       {false, func(o *Options) { o.ServingCertFile, o.ServingKeyFile = "/none.crt", "/none.key" }, "serving certificate /none.crt"},
		"there is no CA of the clients": {false, func(o *Options) { o.ClientCAFile = "/none.crt" }, "client CA"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api, runtime := forward(t, "tcp", strings.TrimPrefix(authority.Config().Host, "https://")), forward(t, "unix", "")
			taken, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if !test.portTaken {
				_ = taken.Close()
			}
			options := Options{
				Kubeconfig: kubeconfigFor(t, authority, api.listener.Addr().String()), NodeName: authority.Namespace(t), NodeIP: net.IPv4(127, 0, 0, 1),
				Port: taken.Addr().(*net.TCPAddr).Port, MaxPods: 1, RootDir: filepath.Join(t.TempDir(), "agent"),
				RuntimeEndpoint: "unix://" + runtime.listener.Addr().String(),
			}
			test.change(&options)
			if err := Run(t.Context(), options); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if api.accepted.Load() == 0 {
				t.Error("the agent did not connect to the authority")
			}
			api.awaitClosed("the authority")
			runtime.awaitClosed("the runtime")
			if unlock, err := lockRootDir(options.RootDir); err != nil {
				t.Errorf("the directory is still locked: %v", err)
			} else {
				unlock()
			}
			_ = taken.Close()
			if l, err := net.Listen("tcp", taken.Addr().String()); err != nil {
				t.Errorf("the port is still open: %v", err)
			} else {
				_ = l.Close()
			}
		})
	}
}

// forwarder counts the connections that it forwards. Without a target it keeps them open and reads.
type forwarder struct {
	t              *testing.T
	listener       net.Listener
	accepted, open atomic.Int32
}

func forward(t *testing.T, network, target string) *forwarder {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "sock")
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	f := &forwarder{t: t, listener: listener}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.accepted.Add(1)
			f.open.Add(1)
			go func() {
				defer f.open.Add(-1)
				defer conn.Close()
				to := io.Discard
				if target != "" {
					other, err := net.Dial(network, target)
					if err != nil {
						return
					}
					defer other.Close()
					go func() { _, _ = io.Copy(conn, other) }()
					to = other
				}
				_, _ = io.Copy(to, conn)
			}()
		}
	}()
	return f
}

// awaitClosed waits until the agent has closed every connection.
func (f *forwarder) awaitClosed(to string) {
	f.t.Helper()
	for range 500 {
		if f.open.Load() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Errorf("%d connections to %s are still open", f.open.Load(), to)
}

// kubeconfigFor returns a file with the authority's kubeconfig, whose server is at another address.
func kubeconfigFor(t *testing.T, authority *lanyardtest.Authority, address string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(authority.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, cluster := range config.Clusters {
		cluster.Server = "https://" + address
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestSecondAgentOfOneName starts a second agent of the same node name: it ends with an error that contains what to do, and the
// first agent continues. When the first agent is started again after its own end, it registers at once.
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
			// The first agent renews the Lease every ten seconds. This test does not wait so long, and renews it itself.
			l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
			_, _ = leases.Update(ctx, l, metav1.UpdateOptions{})
		}
		return false
	})
	if !strings.Contains(hint.Of(refused), "--node-name") {
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
	if waited := time.Since(began); waited > minSilence {
		t.Errorf("the first came back after %v, as if the Lease were another's", waited)
	}
	stop()
	if err := <-first; err != nil {
		t.Errorf("the first ended with %v", err)
	}
}

// awaitReady returns the node's first Ready condition.
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
