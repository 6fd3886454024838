// Promise: pods outlive kills of agent, authority and containerd, and many pods start and end at once. The benchmark of pods is
// here too.

package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/nodetest"
)

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

// TestTwentyPods starts and ends them all at once; BenchmarkPods has more of them.
func TestTwentyPods(t *testing.T) {
	t.Parallel()
	b := commonSite(t).bench(t)
	started := time.Now()
	b.crowd(t, 20, patience)
	t.Logf("20 pods ran %v after the first was made", time.Since(started))
	b.disperse(t, 20, patience)
}

// crowd makes n pods, 16 at a time, and returns when all are ready.
func (b *bench) crowd(t testing.TB, n int, within time.Duration) {
	t.Helper()
	ready := b.counts(t, n, within, func(pod *corev1.Pod, there bool) bool { return there && isReady(pod) })
	var making sync.WaitGroup
	turns := make(chan struct{}, 16)
	for i := range n {
		pod := podOf(t, fmt.Sprintf("pod-%d", i), "", "sleep")
		turns <- struct{}{}
		making.Go(func() {
			defer func() { <-turns }()
			if _, err := b.Client().CoreV1().Pods(b.namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
				t.Errorf("create: %v", err)
			}
		})
	}
	making.Wait()
	ready("ready")
}

// disperse deletes all pods, and returns when n are gone.
func (b *bench) disperse(t testing.TB, n int, within time.Duration) {
	t.Helper()
	gone := b.counts(t, n, within, func(_ *corev1.Pod, there bool) bool { return !there })
	err := b.Client().CoreV1().Pods(b.namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](30)}, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gone("gone")
}

// counts looks on from now, and returns what waits until n pods are what is looked for, none of them being there before.
// It goes on after a watch that the server ended.
func (b *bench) counts(t testing.TB, n int, within time.Duration, is func(*corev1.Pod, bool) bool) (await func(what string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	are, all := sets.Set[string]{}, make(chan struct{})
	see := func(obj any, there bool) {
		if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = last.Obj
		}
		if pod, ok := obj.(*corev1.Pod); ok && len(are) < n && is(pod, there) {
			if are.Insert(pod.Name); len(are) == n {
				close(all)
			}
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(b.Client().CoreV1().RESTClient(), "pods", b.namespace, fields.Everything()),
		ObjectType:    &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(obj any) { see(obj, true) }, UpdateFunc: func(_, obj any) { see(obj, true) }, DeleteFunc: func(obj any) { see(obj, false) },
		},
	})
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		t.Error("pods cannot be watched")
	}
	return func(what string) {
		t.Helper()
		defer cancel()
		select {
		case <-all:
		case <-ctx.Done():
			t.Fatalf("fewer than %d pods are %s within %v\n%s", n, what, within, b.agentLog())
		}
	}
}

// spent is what a process has used.
type spent struct {
	cpu time.Duration
	rss int64 // bytes, now
}

func usage(t testing.TB, pid int) spent {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(stat, []byte(") ")) // the name may have spaces
	fields := bytes.Fields(after)
	number := func(i int) int64 { // numbered as in proc(5)
		n, err := strconv.ParseInt(string(fields[i-3]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const tick = 10 * time.Millisecond // USER_HZ
	return spent{cpu: time.Duration(number(14)+number(15)) * tick, rss: number(24) * int64(os.Getpagesize())}
}

// BenchmarkPods runs 200 pods on one node, looks on for a while, and ends them. Authority, agent and containerd are
// processes of their own, and each is measured alone.
//
//	go test -run xxx -bench BenchmarkPods -benchtime 1x ./internal/systemtest
func BenchmarkPods(b *testing.B) {
	const many, rest = 200, 30 * time.Second
	nodetest.Require(b)
	for b.Loop() {
		h := newHousehold(b)
		up := h.up(b)
		c := nodetest.Start(b)
		s := newSite(b, c, home{h, clientFor(b, h.config(b))})
		place := s.bench(b)
		measure := func(name string, do func()) {
			processes := map[string]int{"authority": up.process.Process.Pid, "agent": s.agent.process.Process.Pid, "containerd": c.PID()}
			before := map[string]spent{}
			for process, pid := range processes {
				before[process] = usage(b, pid)
			}
			started := time.Now()
			do()
			b.ReportMetric(time.Since(started).Seconds(), name+"-s")
			for process, pid := range processes {
				after := usage(b, pid)
				b.ReportMetric((after.cpu - before[process].cpu).Seconds(), name+"-"+process+"-cpu-s")
				b.ReportMetric(float64(after.rss)/(1<<20), name+"-"+process+"-MiB")
			}
		}
		measure("idle", func() {})
		measure("start", func() { place.crowd(b, many, 10*patience) })
		measure("rest", func() { <-time.After(rest) })
		measure("end", func() { place.disperse(b, many, 10*patience) })
		s.end(b)
	}
}
