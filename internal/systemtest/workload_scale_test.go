//go:build linux

package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/nodetest"
)

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
