//go:build linux

package systemtest

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lanyard.dev/internal/node/nodetest"
)

// home is a household as a hub.
type home struct {
	*household
	kubernetes.Interface
}

func (h home) Client() kubernetes.Interface { return h.Interface }
func (h home) Kubeconfig() string           { return filepath.Join(h.dir, "admin.kubeconfig") }

// churn makes and deletes pods, and lets nothing that fails keep it from going on.
type churn struct {
	*bench
	made, ran atomic.Int64
	running   sync.WaitGroup
	stop      context.CancelFunc

	starting sync.RWMutex // read-locked from a pod's creation until it runs
	calm     atomic.Bool  // pods are waited for, and ended gracefully
}

func (b *bench) churn(t *testing.T, workers int) *churn {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &churn{bench: b, stop: stop}
	for id := range workers {
		c.running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				c.one(ctx, podOf(t, fmt.Sprintf("load-%d-%d", id, n), "", []string{"sleep", "stubborn"}[n%2]), n)
			}
		})
	}
	return c
}

// one makes a pod and deletes it: once it runs, or as soon as it is there; gracefully or not.
func (c *churn) one(ctx context.Context, pod *corev1.Pod, n int) {
	pods, calm := c.Client().CoreV1().Pods(c.namespace), c.calm.Load()
	c.starting.RLock()
	again(ctx, func() bool {
		_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
		return err == nil || apierrors.IsAlreadyExists(err)
	})
	c.made.Add(1)
	if calm || n%3 != 0 {
		again(ctx, func() bool {
			now, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
			// One whose start was cut short by a kill has failed: it is not to be started again.
			return err == nil && (now.Status.Phase == corev1.PodRunning || now.Status.Phase == corev1.PodFailed)
		})
		c.ran.Add(1)
	}
	c.starting.RUnlock()
	grace := int64(n % 2)
	if calm {
		grace = 1
	}
	again(ctx, func() bool {
		err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
		return err == nil || apierrors.IsNotFound(err)
	})
}

func again(ctx context.Context, done func() bool) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// goesOn returns when some more pods have been made and have run.
func (c *churn) goesOn(t *testing.T) {
	t.Helper()
	made, ran := c.made.Load(), c.ran.Load()
	eventually(t, "pods come and go", func(context.Context) bool { return c.made.Load() >= made+6 && c.ran.Load() >= ran+4 })
}

// whileNoneStarts does something while pods run and end, and none is being started. A containerd 1.6 that is killed while it
// starts a container may not let go of it for good: it holds it ended, its own task, and refuses to remove it.
func (c *churn) whileNoneStarts(t *testing.T, do func()) {
	t.Helper()
	c.calm.Store(true)
	defer c.calm.Store(false)
	c.goesOn(t)
	locked := make(chan struct{})
	go func() { c.starting.Lock(); close(locked) }()
	select {
	case <-locked:
	case <-time.After(patience):
		t.Fatal("a pod neither runs nor fails")
	}
	defer c.starting.Unlock()
	do()
}

// TestKilledUnderPods kills the agent, the authority and containerd in turn while pods come and go. Pods that stay must not
// notice but for their new tokens, and of the others nothing may be left.
func TestKilledUnderPods(t *testing.T) {
	t.Parallel()
	nodetest.Require(t)
	h := newHousehold(t)
	h.brief = true
	up := h.up(t)
	c := nodetest.Start(t)
	s := newSite(t, c, home{h, clientFor(t, h.config(t))})
	defer s.end(t) // while there is an authority: what was started last is cleaned up first
	b := s.bench(t)
	stays := map[string]*corev1.Pod{}
	for _, name := range []string{"stays-1", "stays-2"} {
		b.create(t, podOf(t, name, "restartPolicy: Always", "tick", "100ms"))
		stays[name] = b.awaitRunning(t, name)
	}
	load := b.churn(t, 3)
	killAgent := func() { _, _ = s.agent.end(t, syscall.SIGKILL) }
	for _, kill := range []func(){
		func() { killAgent(); s.startAgent(t); b.checkRenewed(t, stays) },
		func() { _, _ = up.end(t, syscall.SIGKILL); up = h.up(t) },
		func() { load.whileNoneStarts(t, func() { c.Kill(t) }); c.Restart(t) },
		func() { load.whileNoneStarts(t, func() { killAgent(); c.Kill(t) }); c.Restart(t); s.startAgent(t) },
	} {
		load.goesOn(t)
		kill()
		load.goesOn(t)
		b.checkStay(t, stays)
	}
	b.checkRenewed(t, stays)
	load.stop()
	load.running.Wait()
	t.Logf("%d pods made, %d of them waited for", load.made.Load(), load.ran.Load())
	b.kubectl(t, "delete", "pods", "--now", "--field-selector", "metadata.name!=stays-1,metadata.name!=stays-2")
	b.checkStay(t, stays)
	eventually(t, "only what stays is left", func(context.Context) bool {
		containers := 0
		for _, left := range s.left(t) {
			switch {
			case strings.HasPrefix(left, "container "):
				containers++
			case !belongs(left, stays):
				return false
			}
		}
		return containers == 2*len(stays) // a sandbox each
	})
}

// belongs tells whether what is left is one of these pods'.
func belongs(left string, pods map[string]*corev1.Pod) bool {
	for name, pod := range pods {
		if strings.Contains(left, string(pod.UID)) || left == "object "+pod.Namespace+"/"+name {
			return true
		}
	}
	return false
}

// checkStay holds that the pods have not been restarted.
func (b *bench) checkStay(t *testing.T, stays map[string]*corev1.Pod) {
	t.Helper()
	for name, was := range stays {
		now := b.awaitRunning(t, name)
		before, after := was.Status.ContainerStatuses[0], now.Status.ContainerStatuses[0]
		if now.UID != was.UID || after.ContainerID != before.ContainerID || after.RestartCount != 0 {
			t.Errorf("%s: was %+v, is %+v", name, before, after)
		}
	}
}

// checkRenewed holds that the pods get new tokens that are good.
func (b *bench) checkRenewed(t *testing.T, stays map[string]*corev1.Pod) {
	t.Helper()
	for name, pod := range stays {
		token := b.copyOfToken(t, pod.UID)
		eventually(t, name+" has a new token", func(context.Context) bool {
			next := b.copyOfToken(t, pod.UID)
			return next != token && bearer(t, b.config(t), next).do(t, http.MethodPost, whoAmIPath, `{}`).code == http.StatusCreated
		})
	}
}
