package podgc_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/registry/rest"
	testingclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller/podgc"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/rbac/bootstrap"
)

func TestMain(m *testing.M) { os.Exit(controllertest.TestRoles(m, bootstrap.PodGarbageCollector)) }

var podResource, nodeResource = corev1.Resource("pods"), corev1.Resource("nodes")

// orphanSite is a cluster with an Orphans controller that runs.
type orphanSite struct {
	*controllertest.Cluster
	clock *testingclock.FakeClock
}

// startOrphans runs a controller whose client calls the wrappers.
func startOrphans(t *testing.T, wrappers ...func(http.RoundTripper) http.RoundTripper) *orphanSite {
	t.Helper()
	s := &orphanSite{controllertest.NewCluster(t, storagetest.Start(t), controllertest.Config{}, podResource, nodeResource), testingclock.NewFakeClock(time.Now())}
	index := nodeaccess.NewPods(s.Feed(podResource))
	c := podgc.NewOrphans(s.Client(bootstrap.PodGarbageCollector, wrappers...), index, s.clock)
	s.Feed(podResource).Listen(index)
	s.Feed(podResource).Listen(c.Pods())
	s.Feed(nodeResource).Listen(c.Nodes())
	s.Run(t, c)
	return s
}

func (s *orphanSite) node(t *testing.T, name string) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := s.Store(nodeResource).Create(storagetest.In(t, ""), n, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *orphanSite) removeNode(t *testing.T, name string) {
	t.Helper()
	if _, _, err := s.Store(nodeResource).Delete(storagetest.In(t, ""), name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *orphanSite) pod(t *testing.T, name, on string) {
	t.Helper()
	s.podWith(t, name, on, nil)
}

func (s *orphanSite) podWith(t *testing.T, name, on string, annotations map[string]string) {
	t.Helper()
	meta := storagetest.Meta("ns", name)
	meta.Annotations = annotations
	p := &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{NodeName: on, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	s.Scheme.Default(p)
	if _, err := s.Store(podResource).Create(storagetest.In(t, "ns"), p, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *orphanSite) gone(t *testing.T, name string) bool {
	t.Helper()
	_, err := s.Store(podResource).Get(storagetest.In(t, "ns"), name, &metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err != nil
}

func (s *orphanSite) await(t *testing.T, name string) {
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
	s := startOrphans(t)
	s.node(t, "n")
	s.node(t, "stays")
	s.pod(t, "waiting", "")
	s.pod(t, "there", "stays")
	s.pod(t, "p", "n")
	s.pod(t, "ending", "n")
	if _, _, err := s.Store(podResource).Delete(storagetest.In(t, "ns"), "ending", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.clock.Step(time.Hour)
	s.removeNode(t, "n")
	s.pod(t, "nowhere", "never-was")
	s.podWith(t, "process", "never-was", map[string]string{podannotation.Process: "true"})
	s.clock.Step(podgc.Quarantine - time.Second)
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
	s := startOrphans(t)
	s.node(t, "n")
	s.pod(t, "p", "n")
	s.removeNode(t, "n")
	s.clock.Step(podgc.Quarantine - time.Second)
	s.node(t, "n")
	s.pod(t, "marker", "never-was")
	s.clock.Step(podgc.Quarantine)
	s.await(t, "marker")
	if s.gone(t, "p") {
		t.Error("the pod was removed")
	}
	// And when it goes again, the wait begins anew.
	s.removeNode(t, "n")
	s.clock.Step(podgc.Quarantine)
	s.await(t, "p")
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestNodeThatIsNeverReported: another replica registers a node and deletes it again before the feed can report it. The
// calls of the controller find the node while there is true.
func TestNodeThatIsNeverReported(t *testing.T) {
	t.Parallel()
	var there atomic.Bool
	there.Store(true)
	asked := make(chan struct{}, 10)
	s := startOrphans(t, func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodGet {
				return next.RoundTrip(r)
			}
			defer func() { asked <- struct{}{} }()
			if !there.Load() {
				return next.RoundTrip(r)
			}
			node := io.NopCloser(strings.NewReader(`{"kind":"Node","apiVersion":"v1","metadata":{"name":"n"}}`))
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: node, Request: r}, nil
		})
	})
	s.pod(t, "p", "n")
	s.clock.Step(podgc.Quarantine)
	<-asked
	there.Store(false)
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		s.clock.Step(time.Second)
		return s.gone(t, "p"), nil
	})
	if err != nil {
		t.Fatal("the pod of a node that is gone stays")
	}
}
