package execlease_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/registry/rest"
	testingclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/controller/execlease"
	"lanyard.dev/internal/podannotation"
)

type told struct {
	mu   sync.Mutex
	list []string
}

func (e *told) Event(obj runtime.Object, _, reason, _ string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, obj.(*corev1.Pod).Name+" "+reason)
}

func (e *told) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.list, ", ")
}

type site struct {
	base   *storagetest.Storage
	pods   *storagetest.Pods
	clock  *testingclock.FakeClock
	events *told
}

// start runs a controller. between, if given, happens after it has looked at a pod, and before it removes it.
func start(t *testing.T, between func(*site, string)) *site {
	t.Helper()
	return startOn(t, storagetest.Start(t), between)
}

func startOn(t *testing.T, base *storagetest.Storage, between func(*site, string)) *site {
	t.Helper()
	s := &site{base: base, clock: testingclock.NewFakeClock(time.Now().Truncate(time.Second)), events: &told{}}
	resource := corev1.Resource("pods")
	m := mirror.New(mirror.Config{Base: s.base, SoleWriter: true}, resource)
	s.pods = s.base.Pods(m)
	t.Cleanup(s.pods.Pod.Destroy)
	c := execlease.New(&interrupted{Store: s.pods.Pod, site: s, between: between}, s.events, s.clock)
	m.Feed(resource).Listen(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	go func() { m.Run(ctx); done <- struct{}{} }()
	if err := m.WaitSynced(storagetest.In(t, "")); err != nil {
		t.Fatal(err)
	}
	storagetest.AwaitReady(t, s.pods.Pod)
	go func() { c.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return c.Running(), nil })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLeasesThatEndedWhileNobodyWatched: supervisors that waited for the authority to return are given time to be heard.
func TestLeasesThatEndedWhileNobodyWatched(t *testing.T) {
	t.Parallel()
	base := storagetest.Start(t)
	before := &site{base: base, clock: testingclock.NewFakeClock(time.Now().Truncate(time.Second))}
	before.pods = base.Pods(base)
	t.Cleanup(before.pods.Pod.Destroy)
	before.pod(t, "waits", before.ahead(-time.Hour))
	before.pod(t, "lost", before.ahead(-time.Hour))

	s := startOn(t, base, nil)
	s.clock.Step(podannotation.FirstLease - time.Second)
	if s.gone(t, "waits") || s.gone(t, "lost") {
		t.Fatal("removed before its supervisor could be heard")
	}
	s.renew(t, "waits", time.Hour)
	s.await(t, "lost", time.Second)
	s.clock.Step(time.Minute)
	s.pod(t, "marker", s.ahead(-time.Second))
	s.await(t, "marker", 0)
	if s.gone(t, "waits") {
		t.Error("removed though its supervisor vouches for it")
	}
}

// interrupted is a store in which something happens before each removal.
type interrupted struct {
	execlease.Store
	site    *site
	between func(*site, string)
}

func (i *interrupted) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	if i.between != nil {
		i.between(i.site, name)
	}
	return i.Store.Delete(ctx, name, validate, options)
}

// pod makes one; a lease of "" is left out.
func (s *site) pod(t *testing.T, name, lease string, mutate ...func(*corev1.Pod)) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: storagetest.Meta("ns", name), Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	p.Annotations = map[string]string{podannotation.Process: "true"}
	if lease != "" {
		p.Annotations[podannotation.Lease] = lease
	}
	for _, m := range mutate {
		m(p)
	}
	s.base.Scheme.Default(p)
	if _, err := s.pods.Pod.Create(storagetest.In(t, "ns"), p, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *site) update(t *testing.T, to rest.Updater, name string, mutate func(*corev1.Pod)) {
	t.Helper()
	_, _, err := to.Update(storagetest.In(t, "ns"), name, controller.Change(mutate), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Error(err)
	}
}

func (s *site) ahead(d time.Duration) string { return podannotation.FormatLease(s.clock.Now().Add(d)) }

func (s *site) renew(t *testing.T, name string, d time.Duration) {
	t.Helper()
	s.update(t, s.pods.Pod, name, func(p *corev1.Pod) { p.Annotations[podannotation.Lease] = s.ahead(d) })
}

func (s *site) gone(t *testing.T, name string) bool {
	t.Helper()
	_, err := s.pods.Pod.Get(storagetest.In(t, "ns"), name, &metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err != nil
}

// await lets time pass, step by step, until the pod is gone, and returns how much did.
func (s *site) await(t *testing.T, name string, step time.Duration) time.Duration {
	t.Helper()
	began := s.clock.Now()
	err := wait.PollUntilContextTimeout(t.Context(), 2*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		if s.gone(t, name) {
			return true, nil
		}
		s.clock.Step(step)
		return false, nil
	})
	if err != nil {
		t.Fatalf("%s is still there after %v", name, s.clock.Since(began))
	}
	return s.clock.Since(began)
}

func TestProcessGoesWithItsLease(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		lease  func(*site) string
		lasts  time.Duration
		status corev1.PodPhase
	}{
		{"none", func(*site) string { return "" }, podannotation.FirstLease, ""},
		{"short", func(s *site) string { return s.ahead(30 * time.Second) }, 30 * time.Second, ""},
		{"past", func(s *site) string { return s.ahead(-time.Hour) }, 0, ""},
		{"too-long", func(s *site) string { return s.ahead(24 * time.Hour) }, podannotation.MaxLease, ""},
		{"finished", func(s *site) string { return s.ahead(5 * time.Minute) }, 0, corev1.PodFailed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			s.pod(t, test.name, test.lease(s))
			s.pod(t, "ordinary", s.ahead(-time.Hour), func(p *corev1.Pod) { delete(p.Annotations, podannotation.Process) })
			if test.status != "" {
				s.update(t, s.pods.Status, test.name, func(p *corev1.Pod) { p.Status.Phase = test.status })
			}
			// Time moves in steps and does not wait for the controller, so what passed may be more, but not less.
			if test.lasts > 0 {
				s.clock.Step(test.lasts - 2*time.Second)
				if s.gone(t, test.name) {
					t.Fatal("removed before its time")
				}
			}
			s.await(t, test.name, time.Second)
			if s.gone(t, "ordinary") {
				t.Error("an ordinary pod was removed")
			}
			want := test.name + " ProcessLost"
			if test.status != "" {
				want = test.name + " ProcessEnded"
			}
			err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
				return s.events.String() == want, nil
			})
			if err != nil {
				t.Errorf("told %q", s.events)
			}
		})
	}
}

func TestRenewedLeaseKeepsTheProcess(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.pod(t, "p", s.ahead(time.Minute))
	s.pod(t, "marker", "")
	for range 20 {
		s.clock.Step(40 * time.Second)
		s.renew(t, "p", time.Minute)
	}
	s.await(t, "marker", 0) // by now it is at work
	if s.gone(t, "p") {
		t.Fatal("removed, though its lease was renewed")
	}
	s.await(t, "p", 10*time.Second)
}

// TestRenewalInBetweenWins renews each lease at the last moment, once.
func TestRenewalInBetweenWins(t *testing.T) {
	t.Parallel()
	var once sync.Once
	s := start(t, func(s *site, name string) {
		once.Do(func() { s.renew(t, name, 5*time.Minute) })
	})
	s.pod(t, "p", s.ahead(time.Minute))
	if lasted := s.await(t, "p", time.Second); lasted < 5*time.Minute {
		t.Errorf("removed after %v", lasted)
	}
	if got := s.events.String(); got != "p ProcessLost" {
		t.Errorf("told %q", got)
	}
}

func TestManyProcesses(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	const many = 100
	for i := range many {
		s.pod(t, fmt.Sprint("p", i), s.ahead(time.Duration(many-i)*time.Second))
	}
	for i := range many {
		s.await(t, fmt.Sprint("p", i), time.Second)
	}
}
