package orphans_test

import (
	"context"
	"sync/atomic"
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
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller/orphans"
	"lanyard.dev/internal/podannotation"
)

type site struct {
	base  *storagetest.Storage
	pods  *storagetest.Pods
	nodes *registry.Store
	clock *testingclock.FakeClock
}

func start(t *testing.T) *site {
	t.Helper()
	return startWith(t, func(nodes rest.Getter) rest.Getter { return nodes })
}

// startWith runs a controller that reads nodes as the given function makes of their store.
func startWith(t *testing.T, read func(rest.Getter) rest.Getter) *site {
	t.Helper()
	s := &site{base: storagetest.Start(t), clock: testingclock.NewFakeClock(time.Now())}
	podResource, nodeResource := corev1.Resource("pods"), corev1.Resource("nodes")
	m := mirror.New(mirror.Config{Base: s.base, SoleWriter: true}, podResource, nodeResource)
	s.pods = s.base.Pods(m)
	s.nodes, _ = s.base.Nodes(m)
	t.Cleanup(func() { s.pods.Pod.Destroy(); s.nodes.Destroy() })
	c := orphans.New(s.pods.Pod, read(s.nodes), s.clock)
	m.Feed(podResource).Listen(c.PodFeed())
	m.Feed(nodeResource).Listen(c.NodeFeed())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	go func() { m.Run(ctx); done <- struct{}{} }()
	if err := m.WaitSynced(storagetest.In(t, "")); err != nil {
		t.Fatal(err)
	}
	storagetest.AwaitReady(t, s.pods.Pod, s.nodes)
	go func() { c.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	return s
}

func (s *site) node(t *testing.T, name string) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := s.nodes.Create(storagetest.In(t, ""), n, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *site) removeNode(t *testing.T, name string) {
	t.Helper()
	if _, _, err := s.nodes.Delete(storagetest.In(t, ""), name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *site) pod(t *testing.T, name, on string) {
	t.Helper()
	s.podWith(t, name, on, nil)
}

func (s *site) podWith(t *testing.T, name, on string, annotations map[string]string) {
	t.Helper()
	meta := storagetest.Meta("ns", name)
	meta.Annotations = annotations
	p := &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{NodeName: on, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	s.base.Scheme.Default(p)
	if _, err := s.pods.Pod.Create(storagetest.In(t, "ns"), p, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *site) gone(t *testing.T, name string) bool {
	t.Helper()
	_, err := s.pods.Pod.Get(storagetest.In(t, "ns"), name, &metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err != nil
}

func (s *site) await(t *testing.T, name string) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return s.gone(t, name), nil
	})
	if err != nil {
		t.Fatalf("%s is still there", name)
	}
}

func TestPodsOfANodeThatIsGone(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.node(t, "n")
	s.node(t, "stays")
	s.pod(t, "waiting", "")
	s.pod(t, "there", "stays")
	s.pod(t, "p", "n")
	s.pod(t, "ending", "n")
	if _, _, err := s.pods.Pod.Delete(storagetest.In(t, "ns"), "ending", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.clock.Step(time.Hour)
	s.removeNode(t, "n")
	s.pod(t, "nowhere", "never-was")
	s.podWith(t, "process", "never-was", map[string]string{podannotation.Process: "true"})
	s.clock.Step(orphans.Quarantine - time.Second)
	for _, name := range []string{"p", "ending", "nowhere"} {
		if s.gone(t, name) {
			t.Errorf("%s was removed at once", name)
		}
	}
	s.clock.Step(time.Second)
	for _, name := range []string{"p", "ending", "nowhere"} {
		s.await(t, name)
	}
	for _, name := range []string{"waiting", "there", "process"} {
		if s.gone(t, name) {
			t.Errorf("%s was removed", name)
		}
	}
}

// TestNodeThatReturns: a node that registers again in time keeps its pods.
func TestNodeThatReturns(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.node(t, "n")
	s.pod(t, "p", "n")
	s.removeNode(t, "n")
	s.clock.Step(orphans.Quarantine - time.Second)
	s.node(t, "n")
	s.pod(t, "marker", "never-was")
	s.clock.Step(orphans.Quarantine)
	s.await(t, "marker")
	if s.gone(t, "p") {
		t.Error("the pod was removed")
	}
	// And when it goes again, the wait begins anew.
	s.removeNode(t, "n")
	s.clock.Step(orphans.Quarantine)
	s.await(t, "p")
}

// unseen is a store of nodes in which one is there that no feed tells of, while there is true.
type unseen struct {
	rest.Getter
	there atomic.Bool
	asked chan struct{}
}

func (u *unseen) Get(ctx context.Context, name string, o *metav1.GetOptions) (runtime.Object, error) {
	defer func() { u.asked <- struct{}{} }()
	if u.there.Load() {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil
	}
	return u.Getter.Get(ctx, name, o)
}

// TestNodeThatIsNeverToldOf: another replica registers a node, which is gone again before the feed could tell of it.
func TestNodeThatIsNeverToldOf(t *testing.T) {
	t.Parallel()
	nodes := &unseen{asked: make(chan struct{}, 10)}
	nodes.there.Store(true)
	s := startWith(t, func(stored rest.Getter) rest.Getter { nodes.Getter = stored; return nodes })
	s.pod(t, "p", "n")
	s.clock.Step(orphans.Quarantine)
	<-nodes.asked
	nodes.there.Store(false)
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		s.clock.Step(time.Second)
		return s.gone(t, "p"), nil
	})
	if err != nil {
		t.Fatal("the pod of a node that is gone stays")
	}
}
