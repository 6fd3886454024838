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

// podChurn creates and deletes pods until it is stopped. It retries every request that fails.
type podChurn struct {
	*podNamespace
	made, ran atomic.Int64
	running   sync.WaitGroup
	stop      context.CancelFunc

	starting sync.RWMutex // read-locked from a pod's creation until it runs
	calm     atomic.Bool  // if set, each pod runs before it is deleted, and is deleted gracefully
}

// startChurn starts a podChurn with this number of workers.
func (b *podNamespace) startChurn(t *testing.T, workers int) *podChurn {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &podChurn{podNamespace: b, stop: stop}
	for id := range workers {
		c.running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				c.createAndDelete(ctx, podOf(t, fmt.Sprintf("load-%d-%d", id, n), "", []string{"sleep", "stubborn"}[n%2]), n)
			}
		})
	}
	return c
}

// createAndDelete creates a pod and deletes it, depending on n while it runs or at once, and gracefully or not.
func (c *podChurn) createAndDelete(ctx context.Context, pod *corev1.Pod, n int) {
	pods, calm := c.Client().CoreV1().Pods(c.namespace), c.calm.Load()
	c.starting.RLock()
	retry(ctx, func() bool {
		_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
		return err == nil || apierrors.IsAlreadyExists(err)
	})
	c.made.Add(1)
	if calm || n%3 != 0 {
		retry(ctx, func() bool {
			now, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
			// A pod whose start was interrupted by a kill fails, because its restart policy is Never.
			return err == nil && (now.Status.Phase == corev1.PodRunning || now.Status.Phase == corev1.PodFailed)
		})
		c.ran.Add(1)
	}
	c.starting.RUnlock()
	grace := int64(n % 2)
	if calm {
		grace = 1
	}
	retry(ctx, func() bool {
		err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
		return err == nil || apierrors.IsNotFound(err)
	})
}

// retry calls done until it returns true or ctx ends.
func retry(ctx context.Context, done func() bool) {
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

// awaitProgress returns when some more pods were created and have run.
func (c *podChurn) awaitProgress(t *testing.T) {
	t.Helper()
	made, ran := c.made.Load(), c.ran.Load()
	eventually(t, "more pods are created and run", func(context.Context) bool { return c.made.Load() >= made+6 && c.ran.Load() >= ran+4 })
}

// whileNoPodStarts calls do while pods run and end, but no pod is being started. If containerd 1.6 is killed while it starts
// a container, it may refuse to remove that container for ever.
func (c *podChurn) whileNoPodStarts(t *testing.T, do func()) {
	t.Helper()
	c.calm.Store(true)
	defer c.calm.Store(false)
	c.awaitProgress(t)
	locked := make(chan struct{})
	go func() { c.starting.Lock(); close(locked) }()
	select {
	case <-locked:
	case <-time.After(waitLimit):
		t.Fatal("a pod has neither run nor failed")
	}
	defer c.starting.Unlock()
	do()
}

// TestKillsWhilePodsRun kills the agent, the authority and containerd in turn while pods are created and deleted. Pods that
// stay get new tokens and are not restarted. Nothing is left of the others.
func TestKillsWhilePodsRun(t *testing.T) {
	t.Parallel()
	nodetest.Require(t)
	h := newUpServer(t)
	h.shortTokens = true
	up := h.start(t)
	c := nodetest.Start(t)
	s := newSite(t, c, upAuthority{h, clientFor(t, h.config(t))})
	defer s.end(t) // before the authority ends: cleanups run in reverse order
	b := s.newNamespace(t)
	stays := map[string]*corev1.Pod{}
	for _, name := range []string{"stays-1", "stays-2"} {
		b.create(t, podOf(t, name, "restartPolicy: Always", "tick", "100ms"))
		stays[name] = b.awaitRunning(t, name)
	}
	load := b.startChurn(t, 3)
	killAgent := func() { _, _ = s.agent.end(t, syscall.SIGKILL) }
	for _, kill := range []func(){
		func() { killAgent(); s.startAgent(t); b.checkRenewed(t, stays) },
		func() { _, _ = up.end(t, syscall.SIGKILL); up = h.start(t) },
		func() { load.whileNoPodStarts(t, func() { c.Kill(t) }); c.Restart(t) },
		func() { load.whileNoPodStarts(t, func() { killAgent(); c.Kill(t) }); c.Restart(t); s.startAgent(t) },
	} {
		load.awaitProgress(t)
		kill()
		load.awaitProgress(t)
		b.checkNotRestarted(t, stays)
	}
	b.checkRenewed(t, stays)
	load.stop()
	load.running.Wait()
	t.Logf("%d pods created, %d of them run", load.made.Load(), load.ran.Load())
	b.kubectl(t, "delete", "pods", "--now", "--field-selector", "metadata.name!=stays-1,metadata.name!=stays-2")
	b.checkNotRestarted(t, stays)
	eventually(t, "only the staying pods are left", func(context.Context) bool {
		containers := 0
		for _, left := range s.leftovers(t) {
			switch {
			case strings.HasPrefix(left, "container "):
				containers++
			case !belongsTo(left, stays):
				return false
			}
		}
		return containers == 2*len(stays) // one container and one sandbox for each pod
	})
}

// belongsTo reports whether an entry of leftovers is about one of the pods.
func belongsTo(left string, pods map[string]*corev1.Pod) bool {
	for name, pod := range pods {
		if strings.Contains(left, string(pod.UID)) || left == "object "+pod.Namespace+"/"+name {
			return true
		}
	}
	return false
}

// checkNotRestarted checks that the pods are the same and were not restarted.
func (b *podNamespace) checkNotRestarted(t *testing.T, stays map[string]*corev1.Pod) {
	t.Helper()
	for name, was := range stays {
		now := b.awaitRunning(t, name)
		before, after := was.Status.ContainerStatuses[0], now.Status.ContainerStatuses[0]
		if now.UID != was.UID || after.ContainerID != before.ContainerID || after.RestartCount != 0 {
			t.Errorf("%s: was %+v, is %+v", name, before, after)
		}
	}
}

// checkRenewed waits until each pod has a new, valid token.
func (b *podNamespace) checkRenewed(t *testing.T, stays map[string]*corev1.Pod) {
	t.Helper()
	for name, pod := range stays {
		token := b.tokenOnDisk(t, pod.UID)
		eventually(t, name+" has a new token", func(context.Context) bool {
			next := b.tokenOnDisk(t, pod.UID)
			return next != token && bearer(t, b.config(t), next).do(t, http.MethodPost, whoAmIPath, `{}`).code == http.StatusCreated
		})
	}
}

// TestTwentyPods creates and deletes twenty pods at once. BenchmarkPods has more of them.
func TestTwentyPods(t *testing.T) {
	t.Parallel()
	b := commonSite(t).newNamespace(t)
	started := time.Now()
	b.createPods(t, 20, waitLimit)
	t.Logf("20 pods were ready %v after the first was created", time.Since(started))
	b.deletePods(t, 20, waitLimit)
}

// createPods creates n pods, 16 at a time, and returns when all are ready.
func (b *podNamespace) createPods(t testing.TB, n int, within time.Duration) {
	t.Helper()
	ready := b.watchPods(t, n, within, func(pod *corev1.Pod, there bool) bool { return there && isReady(pod) })
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

// deletePods deletes all pods, and returns when n are gone.
func (b *podNamespace) deletePods(t testing.TB, n int, within time.Duration) {
	t.Helper()
	gone := b.watchPods(t, n, within, func(_ *corev1.Pod, there bool) bool { return !there })
	err := b.Client().CoreV1().Pods(b.namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](30)}, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gone("gone")
}

// watchPods watches pods from now on, and returns a function that waits until counted has returned true for n pods. No pod may exist
// before. An informer continues after a watch that the server ended.
func (b *podNamespace) watchPods(t testing.TB, n int, within time.Duration, counted func(*corev1.Pod, bool) bool) (await func(what string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	seen, all := sets.Set[string]{}, make(chan struct{})
	observe := func(obj any, there bool) {
		if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = last.Obj
		}
		if pod, ok := obj.(*corev1.Pod); ok && len(seen) < n && counted(pod, there) {
			if seen.Insert(pod.Name); len(seen) == n {
				close(all)
			}
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(b.Client().CoreV1().RESTClient(), "pods", b.namespace, fields.Everything()),
		ObjectType:    &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(obj any) { observe(obj, true) }, UpdateFunc: func(_, obj any) { observe(obj, true) }, DeleteFunc: func(obj any) { observe(obj, false) },
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

// processUsage is what a process has used.
type processUsage struct {
	cpu time.Duration
	rss int64 // present resident memory, in bytes
}

// usage reads the usage of a process from /proc.
func usage(t testing.TB, pid int) processUsage {
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
	return processUsage{cpu: time.Duration(number(14)+number(15)) * tick, rss: number(24) * int64(os.Getpagesize())}
}

// BenchmarkPods runs 200 pods on one node, waits for 30 seconds, and deletes them. Authority, agent and containerd are
// processes of their own, and each is measured separately.
//
//	go test -run xxx -bench BenchmarkPods -benchtime 1x ./internal/systemtest
func BenchmarkPods(b *testing.B) {
	const many, rest = 200, 30 * time.Second
	nodetest.Require(b)
	for b.Loop() {
		h := newUpServer(b)
		up := h.start(b)
		c := nodetest.Start(b)
		s := newSite(b, c, upAuthority{h, clientFor(b, h.config(b))})
		place := s.newNamespace(b)
		measure := func(name string, do func()) {
			processes := map[string]int{"authority": up.process.Process.Pid, "agent": s.agent.process.Process.Pid, "containerd": c.PID()}
			before := map[string]processUsage{}
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
		measure("start", func() { place.createPods(b, many, 10*waitLimit) })
		measure("rest", func() { <-time.After(rest) })
		measure("end", func() { place.deletePods(b, many, 10*waitLimit) })
		s.end(b)
	}
}
