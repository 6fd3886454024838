package podgc_test

import (
	"context"
	"fmt"
	"net/http"
	"path"
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

	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller/podgc"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/rbac/bootstrap"
)

// recorded keeps events.
type recorded struct {
	mu   sync.Mutex
	list []string
}

func (e *recorded) Event(obj runtime.Object, _, reason, _ string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, obj.(*corev1.Pod).Name+" "+reason)
}

func (e *recorded) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.list, ", ")
}

// processSite is a cluster with a Processes controller that runs.
type processSite struct {
	*controllertest.Cluster
	clock  *testingclock.FakeClock
	events *recorded
}

// startProcesses runs a controller. between, if given, is called after the controller has read a pod and before it
// deletes it.
func startProcesses(t *testing.T, between func(*processSite, string)) *processSite {
	t.Helper()
	return runProcesses(t, newProcessSite(t, storagetest.Start(t)), between)
}

func newProcessSite(t *testing.T, storage *storagetest.Storage) *processSite {
	return &processSite{
		Cluster: controllertest.NewCluster(t, storage, controllertest.Config{}, podResource),
		clock:   testingclock.NewFakeClock(time.Now().Truncate(time.Second)), events: &recorded{},
	}
}

func runProcesses(t *testing.T, s *processSite, between func(*processSite, string)) *processSite {
	t.Helper()
	client := s.Client(bootstrap.PodGarbageCollector, controllertest.Before(http.MethodDelete, func(url string) error {
		if between != nil {
			between(s, path.Base(url))
		}
		return nil
	}))
	c := podgc.NewProcesses(client, s.events, s.clock)
	s.Feed(podResource).Listen(c)
	s.Run(t, c)
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return c.Running(), nil })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLeasesThatEndedWithoutAServer: supervisors that waited for the server to return have time to renew their leases.
func TestLeasesThatEndedWithoutAServer(t *testing.T) {
	t.Parallel()
	storage := storagetest.Start(t)
	before := newProcessSite(t, storage)
	before.pod(t, "waits", before.ahead(-time.Hour))
	before.pod(t, "lost", before.ahead(-time.Hour))

	s := runProcesses(t, newProcessSite(t, storage), nil)
	s.clock.Step(podannotation.FirstLease - time.Second)
	if s.gone(t, "waits") || s.gone(t, "lost") {
		t.Fatal("removed before its supervisor could renew the lease")
	}
	s.renew(t, "waits", time.Hour)
	s.await(t, "lost", time.Second)
	s.clock.Step(time.Minute)
	s.pod(t, "marker", s.ahead(-time.Second))
	s.await(t, "marker", 0)
	if s.gone(t, "waits") {
		t.Error("removed, although its supervisor renewed the lease")
	}
}

// pod creates the pod of a process. A lease of "" means none.
func (s *processSite) pod(t *testing.T, name, lease string, mutate ...func(*corev1.Pod)) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: storagetest.Meta("ns", name), Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	p.Annotations = map[string]string{podannotation.Process: "true"}
	if lease != "" {
		p.Annotations[podannotation.Lease] = lease
	}
	for _, m := range mutate {
		m(p)
	}
	s.Scheme.Default(p)
	if _, err := s.Store(podResource).Create(storagetest.In(t, "ns"), p, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *processSite) update(t *testing.T, to rest.Updater, name string, mutate func(*corev1.Pod)) {
	t.Helper()
	_, _, err := to.Update(storagetest.In(t, "ns"), name, controllertest.Change(mutate), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Error(err)
	}
}

func (s *processSite) ahead(d time.Duration) string {
	return podannotation.FormatLease(s.clock.Now().Add(d))
}

func (s *processSite) renew(t *testing.T, name string, d time.Duration) {
	t.Helper()
	s.update(t, s.Store(podResource), name, func(p *corev1.Pod) { p.Annotations[podannotation.Lease] = s.ahead(d) })
}

func (s *processSite) gone(t *testing.T, name string) bool {
	t.Helper()
	_, err := s.Store(podResource).Get(storagetest.In(t, "ns"), name, &metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err != nil
}

// await lets time pass, step by step, until the pod is gone, and returns how much time passed.
func (s *processSite) await(t *testing.T, name string, step time.Duration) time.Duration {
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
		lease  func(*processSite) string
		lasts  time.Duration
		status corev1.PodPhase
	}{
		{"none", func(*processSite) string { return "" }, podannotation.FirstLease, ""},
		{"short", func(s *processSite) string { return s.ahead(30 * time.Second) }, 30 * time.Second, ""},
		{"past", func(s *processSite) string { return s.ahead(-time.Hour) }, 0, ""},
		{"too-long", func(s *processSite) string { return s.ahead(24 * time.Hour) }, podannotation.MaxLease, ""},
		{"finished", func(s *processSite) string { return s.ahead(5 * time.Minute) }, 0, corev1.PodFailed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startProcesses(t, nil)
			s.pod(t, test.name, test.lease(s))
			s.pod(t, "ordinary", s.ahead(-time.Hour), func(p *corev1.Pod) { delete(p.Annotations, podannotation.Process) })
			if test.status != "" {
				s.update(t, s.Subresource(corev1.Resource("pods/status")), test.name, func(p *corev1.Pod) { p.Status.Phase = test.status })
			}
			// Time moves in steps and does not wait for the controller, so more time may have passed, but not less.
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
				t.Errorf("recorded %q", s.events)
			}
		})
	}
}

func TestRenewedLeaseKeepsTheProcess(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, nil)
	s.pod(t, "p", s.ahead(time.Minute))
	s.pod(t, "marker", "")
	for range 20 {
		s.clock.Step(40 * time.Second)
		s.renew(t, "p", time.Minute)
	}
	s.await(t, "marker", 0) // the controller has handled the renewals
	if s.gone(t, "p") {
		t.Fatal("removed, although its lease was renewed")
	}
	s.await(t, "p", 10*time.Second)
}

// TestRenewalInBetweenWins renews each lease once, just before the deletion of its pod.
func TestRenewalInBetweenWins(t *testing.T) {
	t.Parallel()
	var once sync.Once
	s := startProcesses(t, func(s *processSite, name string) {
		once.Do(func() { s.renew(t, name, 5*time.Minute) })
	})
	s.pod(t, "p", s.ahead(time.Minute))
	if lasted := s.await(t, "p", time.Second); lasted < 5*time.Minute {
		t.Errorf("removed after %v", lasted)
	}
	if got := s.events.String(); got != "p ProcessLost" {
		t.Errorf("recorded %q", got)
	}
}

func TestManyProcesses(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, nil)
	const many = 100
	for i := range many {
		s.pod(t, fmt.Sprint("p", i), s.ahead(time.Duration(many-i)*time.Second))
	}
	for i := range many {
		s.await(t, fmt.Sprint("p", i), time.Second)
	}
}
