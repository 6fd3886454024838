package controller_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/rbac/bootstrap"
)

// site is a cluster with the namespaces shop, other and ending, the last of which is being deleted, and a recorder that
// runs.
type site struct {
	*controllertest.Cluster
	*controller.Recorder
}

func start(t *testing.T, name string) *site {
	t.Helper()
	events, namespaces := corev1.Resource("events"), corev1.Resource("namespaces")
	s := &site{Cluster: controllertest.NewCluster(t, storagetest.Start(t), controllertest.Config{}, events, namespaces)}
	for _, name := range []string{"shop", "other", "ending"} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		s.Scheme.Default(ns)
		if _, err := s.Namespaces().Create(storagetest.In(t, ""), ns, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Namespaces().Delete(storagetest.In(t, ""), "ending", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.Recorder = controller.NewRecorder("test-controller", s.Client(name))
	s.Cluster.Run(t, s.Recorder)
	return s
}

// list returns the events that the watch cache holds, which are in the order in which they were written.
func (s *site) list(t *testing.T, in string) []corev1.Event {
	t.Helper()
	cached := &internalversion.ListOptions{ResourceVersion: "0"}
	list, err := s.Store(corev1.Resource("events")).List(storagetest.In(t, in), cached)
	if err != nil {
		t.Fatal(err)
	}
	return list.(*corev1.EventList).Items
}

func (s *site) await(t *testing.T, what string, done func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return done(), nil
	})
	if err != nil {
		t.Fatalf("no %s", what)
	}
}

// running returns once events are written: events before that are lost. Each try is about another object, since the
// events about one object are limited.
func (s *site) running(t *testing.T, events controller.Events) {
	t.Helper()
	tries := 0
	s.await(t, "event", func() bool {
		p := pod("other")
		p.UID = types.UID(strconv.Itoa(tries))
		tries++
		events.Event(p, corev1.EventTypeNormal, "Try", "a")
		return len(s.list(t, "other")) > 0
	})
}

func pod(in string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "p", UID: "u"}}
}

// TestRepetitionsAreCounted records events as each controller that has events, with the rights of its role.
func TestRepetitionsAreCounted(t *testing.T) {
	t.Parallel()
	for _, name := range []string{bootstrap.NodeController, bootstrap.PodGarbageCollector, bootstrap.Scheduler, bootstrap.SigningKeyController} {
		t.Run(name, func(t *testing.T) { t.Parallel(); testRepetitions(t, name) })
	}
}

func testRepetitions(t *testing.T, name string) {
	s := start(t, name)
	events := s.Recorder
	s.running(t, events)
	record := func() { events.Event(pod("shop"), corev1.EventTypeWarning, "Odd", "something is odd") }
	for range 3 {
		record()
	}
	s.await(t, "count of three", func() bool {
		all := s.list(t, "shop")
		return len(all) > 0 && all[0].Count == 3
	})
	all := s.list(t, "shop")
	if len(all) != 1 {
		t.Fatalf("%d events: %+v", len(all), all)
	}
	e := all[0]
	if about := (corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: "shop", Name: "p", UID: "u"}); e.InvolvedObject != about {
		t.Errorf("about %+v", e.InvolvedObject)
	}
	if diff := cmp.Diff([]string{"Warning", "Odd", "something is odd", "test-controller"}, []string{e.Type, e.Reason, e.Message, e.Source.Component}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// An event that has been removed, as all are after a time, is created again.
	if _, _, err := s.Store(corev1.Resource("events")).Delete(storagetest.In(t, "shop"), e.Name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	record()
	s.await(t, "new event", func() bool { return len(s.list(t, "shop")) == 1 })
}

func TestNoEventsInANamespaceThatEnds(t *testing.T) {
	t.Parallel()
	s := start(t, bootstrap.Scheduler)
	events := s.Recorder
	s.running(t, events)
	// They are written in order.
	for _, in := range []string{"ending", "missing", "shop"} {
		events.Event(pod(in), corev1.EventTypeNormal, "Odd", "a")
	}
	s.await(t, "event elsewhere", func() bool { return len(s.list(t, "shop")) > 0 })
	if left := append(s.list(t, "ending"), s.list(t, "missing")...); len(left) > 0 {
		t.Errorf("written: %+v", left)
	}
}
