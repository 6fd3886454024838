package nodelifecycle_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/registry/rest"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller/nodelifecycle"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/rbac/bootstrap"
)

// recorded keeps events.
type recorded struct {
	mu   sync.Mutex
	list []string
}

func (e *recorded) Event(obj runtime.Object, _, reason, message string) {
	m, err := meta.Accessor(obj)
	if err != nil {
		panic(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, fmt.Sprintf("%s %s: %s", m.GetName(), reason, message))
}

func (e *recorded) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(slices.Values(e.list))
}

func TestMain(m *testing.M) { os.Exit(controllertest.TestRoles(m, bootstrap.NodeController)) }

// shared is what all replicas share.
type shared struct {
	storage *storagetest.Storage
	clock   *testingclock.FakeClock
	events  *recorded
}

// replica is one process with a controller that runs.
type replica struct {
	*shared
	*controllertest.Cluster
}

func start(t *testing.T, replicas int) *replica {
	t.Helper()
	s := &shared{storage: storagetest.Start(t), clock: testingclock.NewFakeClock(time.Now()), events: &recorded{}}
	var first *replica
	for range replicas {
		if r := s.replica(t, replicas == 1); first == nil {
			first = r
		}
	}
	return first
}

var podResource, nodeResource, leaseResource = corev1.Resource("pods"), corev1.Resource("nodes"), coordinationv1.Resource("leases")

func (s *shared) replica(t *testing.T, alone bool) *replica {
	t.Helper()
	r := &replica{s, controllertest.NewCluster(t, s.storage, controllertest.Config{Replicas: !alone}, podResource, nodeResource, leaseResource)}
	index := nodeaccess.NewPods(r.Feed(podResource))
	c := nodelifecycle.New(nodelifecycle.Config{Client: r.Client(bootstrap.NodeController), Pods: index, Events: s.events, Clock: s.clock})
	r.Feed(podResource).Listen(index)
	r.Feed(nodeResource).Listen(c.Nodes())
	r.Feed(leaseResource).Listen(c.Leases())
	r.Run(t, c)
	return r
}

func (r *replica) pods() *registry.Store  { return r.Store(podResource) }
func (r *replica) nodes() *registry.Store { return r.Store(nodeResource) }

func (r *replica) node(t *testing.T, name string, mutate ...func(*corev1.Node)) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, m := range mutate {
		m(n)
	}
	r.Scheme.Default(n)
	if _, err := r.nodes().Create(storagetest.In(t, ""), n, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func ready(status corev1.ConditionStatus) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: status, Reason: "AgentReady"},
			{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse},
			{Type: "example.com/Own", Status: corev1.ConditionTrue},
		}
	}
}

// renew writes the node's Lease as its agent does.
func (r *replica) renew(t *testing.T, name string) {
	t.Helper()
	info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, stored runtime.Object) (runtime.Object, error) {
		l := stored.DeepCopyObject().(*coordinationv1.Lease)
		l.Namespace, l.Name = "kube-node-lease", name
		l.Spec = coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: ptr.To[int32](40), RenewTime: ptr.To(metav1.NewMicroTime(r.clock.Now()))}
		return l, nil
	})
	_, _, err := r.Store(leaseResource).Update(storagetest.In(t, "kube-node-lease"), name, info, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (r *replica) pod(t *testing.T, name, on string, isReady corev1.ConditionStatus, annotations map[string]string) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: storagetest.Meta("ns", name), Spec: corev1.PodSpec{NodeName: on, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	p.Annotations = annotations
	r.Scheme.Default(p)
	if _, err := r.pods().Create(storagetest.In(t, "ns"), p, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.report(t, name, isReady)
}

func (r *replica) report(t *testing.T, name string, isReady corev1.ConditionStatus) {
	t.Helper()
	set := controllertest.Change(func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: isReady, Reason: "Agent"}}
	})
	_, _, err := r.Subresource(corev1.Resource("pods/status")).Update(storagetest.In(t, "ns"), name, set, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (r *replica) change(t *testing.T, to rest.Updater, name string, mutate func(*corev1.Node)) {
	t.Helper()
	_, _, err := to.Update(storagetest.In(t, ""), name, controllertest.Change(mutate), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// state returns the node's conditions and taints as a short text.
func (r *replica) state(t *testing.T, name string) string {
	t.Helper()
	found, err := r.nodes().Get(storagetest.In(t, ""), name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "gone"
	}
	if err != nil {
		t.Fatal(err)
	}
	n, text := found.(*corev1.Node), ""
	for _, c := range n.Status.Conditions {
		text += fmt.Sprintf("%s=%s/%s ", c.Type, c.Status, c.Reason)
	}
	for _, taint := range n.Spec.Taints {
		text += fmt.Sprintf("%s:%s ", taint.Key, taint.Effect)
	}
	return text
}

func await(t *testing.T, got func() string, want string) {
	t.Helper()
	last := ""
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		last = got()
		return last == want, nil
	})
	if err != nil {
		t.Fatalf("got %q, want %q", last, want)
	}
}

func (r *replica) podState(t *testing.T, name string) string {
	t.Helper()
	found, err := r.pods().Get(storagetest.In(t, "ns"), name, &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, c := range found.(*corev1.Pod).Status.Conditions {
		text += fmt.Sprintf("%s=%s/%s ", c.Type, c.Status, c.Reason)
	}
	return text
}

const (
	alive    = "Ready=True/AgentReady DiskPressure=False/ example.com/Own=True/ "
	lost     = "Ready=Unknown/NodeStatusUnknown DiskPressure=Unknown/NodeStatusUnknown example.com/Own=True/ "
	notReady = "node.kubernetes.io/not-ready:NoSchedule "
	away     = "node.kubernetes.io/unreachable:NoSchedule "
)

func TestTaints(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	state := func() string { return r.state(t, "n") }
	r.node(t, "n", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "own", Effect: corev1.TaintEffectNoExecute}}
	})
	await(t, state, "own:NoExecute "+notReady)
	r.change(t, r.Subresource(corev1.Resource("nodes/status")), "n", ready(corev1.ConditionTrue))
	await(t, state, alive+"own:NoExecute ")
	r.change(t, r.nodes(), "n", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	await(t, state, alive+"own:NoExecute node.kubernetes.io/unschedulable:NoSchedule ")
	r.change(t, r.nodes(), "n", func(n *corev1.Node) { n.Spec.Unschedulable = false })
	await(t, state, alive+"own:NoExecute ")
	r.change(t, r.Subresource(corev1.Resource("nodes/status")), "n", func(n *corev1.Node) { n.Status.Conditions[1].Status = corev1.ConditionTrue })
	await(t, state, "Ready=True/AgentReady DiskPressure=True/ example.com/Own=True/ own:NoExecute node.kubernetes.io/disk-pressure:NoSchedule ")
	r.change(t, r.Subresource(corev1.Resource("nodes/status")), "n", ready(corev1.ConditionFalse))
	await(t, state, "Ready=False/AgentReady DiskPressure=False/ example.com/Own=True/ own:NoExecute "+notReady)
}

func TestNodeStopsAndReturns(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	state := func(name string) func() string { return func() string { return r.state(t, name) } }
	r.node(t, "n", ready(corev1.ConditionTrue))
	r.node(t, "by-hand", ready(corev1.ConditionTrue))
	r.renew(t, "n")
	r.pod(t, "well", "n", corev1.ConditionTrue, nil)
	r.pod(t, "ill", "n", corev1.ConditionFalse, nil)
	r.pod(t, "elsewhere", "by-hand", corev1.ConditionTrue, nil)
	r.pod(t, "process", "n", corev1.ConditionTrue, map[string]string{podannotation.Process: "true"})

	// A node whose lease is renewed stays ready.
	for range 12 {
		r.clock.Step(10 * time.Second)
		r.renew(t, "n")
		await(t, state("n"), alive)
	}
	r.clock.Step(nodelifecycle.GracePeriod - time.Second)
	await(t, state("n"), alive)
	r.clock.Step(time.Second)
	await(t, state("n"), lost+away)
	podState := func(name string) func() string { return func() string { return r.podState(t, name) } }
	await(t, podState("well"), "Ready=False/NodeNotReady ")
	for name, want := range map[string]string{"ill": "Ready=False/Agent ", "elsewhere": "Ready=True/Agent ", "process": "Ready=True/Agent "} {
		if got := r.podState(t, name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := r.state(t, "by-hand"); got != alive {
		t.Errorf("a node without a lease: %s", got)
	}
	await(t, func() string { return fmt.Sprint(len(r.events.all())) }, "2")
	want := []string{"n NodeNotReady: Node n status is now: NodeNotReady", "well NodeNotReady: Node is not ready"}
	if diff := cmp.Diff(want, r.events.all()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	// The agent returns and stops again.
	r.renew(t, "n")
	r.change(t, r.Subresource(corev1.Resource("nodes/status")), "n", ready(corev1.ConditionTrue))
	r.report(t, "well", corev1.ConditionTrue)
	await(t, state("n"), alive)
	r.clock.Step(nodelifecycle.GracePeriod)
	await(t, state("n"), lost+away)
	await(t, podState("well"), "Ready=False/NodeNotReady ")
}

// TestPodsAreMarkedOnce: an agent that still writes the status of its pods, but not its Lease, is not overruled again.
func TestPodsAreMarkedOnce(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	r.node(t, "n", ready(corev1.ConditionTrue))
	r.renew(t, "n")
	r.pod(t, "p", "n", corev1.ConditionTrue, nil)
	await(t, func() string { r.clock.Step(10 * time.Second); return r.podState(t, "p") }, "Ready=False/NodeNotReady ")
	await(t, func() string { return r.state(t, "n") }, lost+away)
	r.report(t, "p", corev1.ConditionTrue)
	r.change(t, r.nodes(), "n", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	await(t, func() string { return r.state(t, "n") }, lost+away+"node.kubernetes.io/unschedulable:NoSchedule ")
	if got := r.podState(t, "p"); got != "Ready=True/Agent " {
		t.Errorf("the pod: %s", got)
	}
}

func TestAgentThatNeverReported(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	r.node(t, "n")
	r.renew(t, "n")
	await(t, func() string { return r.state(t, "n") }, notReady)
	r.clock.Step(nodelifecycle.GracePeriod)
	await(t, func() string { return r.state(t, "n") }, "Ready=Unknown/NodeStatusNeverUpdated "+away)
}

// TestNodeRegisteredAnew checks that the heartbeats of an earlier node of the same name are ignored.
func TestNodeRegisteredAnew(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	r.node(t, "n", ready(corev1.ConditionTrue))
	r.renew(t, "n")
	if _, _, err := r.nodes().Delete(storagetest.In(t, ""), "n", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.clock.Step(time.Hour)
	r.node(t, "n", ready(corev1.ConditionTrue))
	r.clock.Step(nodelifecycle.GracePeriod - time.Second)
	r.change(t, r.nodes(), "n", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	await(t, func() string { return r.state(t, "n") }, alive+"node.kubernetes.io/unschedulable:NoSchedule ")
	r.clock.Step(time.Second)
	await(t, func() string { return r.state(t, "n") }, lost+"node.kubernetes.io/unschedulable:NoSchedule "+away)
}

// TestReplicasRecordOneEvent: several replicas mark the same node, and one of them records the event.
func TestReplicasRecordOneEvent(t *testing.T) {
	t.Parallel()
	r := start(t, 3)
	for i := range 5 {
		name := fmt.Sprint("n", i)
		r.node(t, name, ready(corev1.ConditionTrue))
		r.renew(t, name)
		r.pod(t, fmt.Sprint("p", i), name, corev1.ConditionTrue, nil)
	}
	for i := range 5 {
		// Time passes in steps, since a replica may not have seen the leases yet.
		await(t, func() string { r.clock.Step(10 * time.Second); return r.state(t, fmt.Sprint("n", i)) }, lost+away)
		await(t, func() string { return r.podState(t, fmt.Sprint("p", i)) }, "Ready=False/NodeNotReady ")
	}
	await(t, func() string { return fmt.Sprint(len(r.events.all())) }, "10")
	if all := r.events.all(); len(slices.Compact(all)) != 10 {
		t.Errorf("recorded: %q", all)
	}
}
