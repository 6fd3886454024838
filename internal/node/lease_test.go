//go:build linux

package node

import (
	"context"
	"errors"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/hint"
	"lanyard.dev/lanyardtest"
)

// TestHolder starts an agent on a node that has a Lease already.
func TestHolder(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	client := authority.Client()
	const own, other = "own-id", "other-id"
	for _, test := range []struct {
		name string
		// agent is the agent in the Lease's annotation; "-" is a Lease without annotation, as kubelets write it, and "" is no
		// Lease.
		agent string
		// ago is how long ago the Lease was renewed, by the clock of its holder.
		ago time.Duration
		// bootID is the Node's. If renews is set, the holder renews the Lease during the test, and if goes is set, it deletes it.
		bootID       string
		renews, goes bool
		// waits is how long the Lease must not be renewed before it is taken over.
		waits time.Duration
	}{
		{"none", "", 0, "", false, false, 0},
		{"its own, fresh", own, 0, "", false, false, 0},
		{"its own, ended", own, time.Hour, "", false, false, 0},
		{"another's that lives", other, 0, "", true, false, 0},
		{"another's that lives with a clock behind", other, time.Hour, "", true, false, 0},
		{"another's that is silent", other, 0, "", false, false, leaseDuration},
		{"another's that was silent for a while", other, 15 * time.Second, "", false, false, leaseDuration - 15*time.Second},
		{"another's that has ended", other, time.Hour, "", false, false, minSilence},
		{"another's with a clock ahead", other, -time.Hour, "", false, false, leaseDuration},
		{"another's that is given up", other, 0, "", false, true, 0},
		{"another's on this machine", other, 0, "this boot", true, false, 0},
		{"a kubelet's that lives", "-", 0, "another boot", true, false, 0},
		{"one of this machine without a mark", "-", 0, "this boot", false, false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			now := testingclock.NewFakeClock(time.Now())
			name := authority.Namespace(t)
			leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
			if test.bootID != "" {
				node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{BootID: test.bootID}}}
				if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if test.agent != "" {
				l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: coordinationv1.LeaseSpec{
					HolderIdentity: &name, LeaseDurationSeconds: ptr.To(int32(40)), RenewTime: &metav1.MicroTime{Time: now.Now().Add(-test.ago)},
				}}
				if test.agent != "-" {
					l.Annotations = map[string]string{agentAnnotation: test.agent}
				}
				if _, err := leases.Create(t.Context(), l, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			h := &holder{leases: leases, nodes: client.CoreV1().Nodes(), name: name, agent: own, bootID: "this boot", clock: now}
			waited, err := takeWith(t, h, now, func() {
				switch {
				case test.renews:
					renew(t, client, name)
				case test.goes:
					_ = leases.Delete(t.Context(), name, metav1.DeleteOptions{})
				}
			})
			if test.renews {
				if hint.Of(err) != "name this machine with --node-name, or end the other agent first" {
					t.Errorf("got %v, want that another agent lives", err)
				}
				return
			}
			if err != nil || waited < test.waits || waited > test.waits+2*pollPeriod {
				t.Errorf("got %v after %v, want the Lease after %v", err, waited, test.waits)
			}
			if found, err := leases.Get(t.Context(), name, metav1.GetOptions{}); test.agent != "" && !test.goes && (err != nil || !h.isOwn(found)) {
				t.Errorf("the Lease contains %+v, %v", found, err)
			}
		})
	}
}

// takeWith calls take and steps the clock until it returns, and returns how far the clock went. It calls meanwhile before
// each step.
func takeWith(t *testing.T, h *holder, now *testingclock.FakeClock, meanwhile func()) (time.Duration, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began, done := now.Now(), make(chan error, 1)
	go func() { done <- h.take(ctx) }()
	for {
		select {
		case err := <-done:
			return now.Since(began), err
		case <-time.After(time.Millisecond): // until take waits for the clock
		}
		if now.HasWaiters() {
			meanwhile()
			now.Step(pollPeriod)
		}
	}
}

func renew(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	found, err := leases.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found.Spec.RenewTime = &metav1.MicroTime{Time: found.Spec.RenewTime.Add(time.Millisecond)}
	if _, err := leases.Update(t.Context(), found, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestAgentEndsWhereAnotherHasItsLease starts two agents of one name at once. The first keeps the Lease, and the second ends.
func TestAgentEndsWhereAnotherHasItsLease(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	registrations := func(agent string) *registration {
		h := &holder{
			leases: authority.Client().CoordinationV1().Leases(corev1.NamespaceNodeLease), nodes: authority.Client().CoreV1().Nodes(),
			name: "n", agent: agent, clock: clock.RealClock{},
		}
		return &registration{
			client: authority.Client(), heartbeats: authority.Client(), reconnect: func() {}, name: "n", holder: h, clock: clock.RealClock{},
			observe: func(context.Context, *corev1.NodeStatus) corev1.NodeStatus { return corev1.NodeStatus{} },
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- registrations("a").run(ctx, func() {}) }()
	leases := authority.Client().CoordinationV1().Leases(corev1.NamespaceNodeLease)
	for held := false; !held; {
		found, err := leases.Get(ctx, "n", metav1.GetOptions{})
		if held = err == nil && found.Annotations[agentAnnotation] == "a"; !held {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				t.Fatal("the first agent made no Lease")
			}
		}
	}
	go func() { second <- registrations("b").run(ctx, func() {}) }()
	if err := <-second; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second agent ended with %v, want that another has the Lease", err)
	}
	stop()
	if err := <-first; err != nil {
		t.Errorf("the first agent ended with %v", err)
	}
}
