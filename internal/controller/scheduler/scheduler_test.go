package scheduler

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/rbac/bootstrap"
)

func TestMain(m *testing.M) { os.Exit(controllertest.TestRoles(m, bootstrap.Scheduler)) }

// recorded keeps events.
type recorded struct {
	mu   sync.Mutex
	list []string
}

func (e *recorded) Event(obj runtime.Object, eventType, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, fmt.Sprintf("%s %s %s: %s", obj.(*corev1.Pod).Name, eventType, reason, message))
}

func (e *recorded) about(name string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var mine []string
	for _, line := range e.list {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			mine = append(mine, rest)
		}
	}
	return mine
}

var podResource, nodeResource, leaseResource = corev1.Resource("pods"), corev1.Resource("nodes"), coordinationv1.Resource("leases")

// replica is one process with a scheduler that runs.
type replica struct {
	*controllertest.Cluster
	events *recorded // of all replicas
	nodes  *nodesSeen
}

// nodesSeen counts the changes of nodes that all replicas have received.
type nodesSeen struct{ atomic.Int64 }

// Set implements mirror.Listener.
func (n *nodesSeen) Set(runtime.Object) { n.Add(1) }

// Delete implements mirror.Listener.
func (*nodesSeen) Delete(runtime.Object) {}

// start runs replicas on one storage and returns the first.
func start(t *testing.T, replicas int) *replica {
	t.Helper()
	storage, events, nodes := storagetest.Start(t), &recorded{}, &nodesSeen{}
	var first *replica
	for i := range replicas {
		if r := newReplica(t, storage, events, nodes, i, replicas == 1); first == nil {
			first = r
		}
	}
	return first
}

func newReplica(t *testing.T, storage *storagetest.Storage, events *recorded, nodes *nodesSeen, number int, alone bool) *replica {
	t.Helper()
	r := &replica{Cluster: controllertest.NewCluster(t, storage, controllertest.Config{Replicas: !alone}, podResource, nodeResource, leaseResource), events: events, nodes: nodes}
	index := nodeaccess.NewPods(r.Feed(podResource))
	c := Config{Client: r.Client(bootstrap.Scheduler), Pods: index, Events: events, Clock: clock.RealClock{}}
	if !alone {
		c.Identity = fmt.Sprint("replica-", number)
	}
	scheduler := New(c)
	r.Feed(podResource).Listen(index)
	r.Feed(podResource).Listen(scheduler.PodListener())
	r.Feed(nodeResource).Listen(scheduler.NodeListener())
	r.Feed(nodeResource).Listen(nodes)
	r.Run(t, scheduler)
	return r
}

func (r *replica) pods() *registry.Store { return r.Store(podResource) }

func (r *replica) node(t *testing.T, name string, mutate ...func(*corev1.Node)) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	for _, m := range mutate {
		m(n)
	}
	r.Scheme.Default(n)
	if _, err := r.Store(nodeResource).Create(storagetest.In(t, ""), n, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (r *replica) changeNode(t *testing.T, to rest.Updater, name string, mutate func(*corev1.Node)) {
	t.Helper()
	_, _, err := to.Update(storagetest.In(t, ""), name, controllertest.Change(mutate), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (r *replica) pod(t *testing.T, name string, mutate ...func(*corev1.Pod)) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: storagetest.Meta("ns", name), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	for _, m := range mutate {
		m(p)
	}
	r.Scheme.Default(p)
	if _, err := r.pods().Create(storagetest.In(t, "ns"), p, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (r *replica) get(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	found, err := r.pods().Get(storagetest.In(t, "ns"), name, &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return found.(*corev1.Pod)
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) { return done(), nil })
	if err != nil {
		t.Fatalf("waited in vain until %s", what)
	}
}

func (r *replica) awaitNode(t *testing.T, name, node string) {
	t.Helper()
	await(t, name+" is on "+node, func() bool { return r.get(t, name).Spec.NodeName == node })
}

func scheduled(p *corev1.Pod) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return c
		}
	}
	return corev1.PodCondition{}
}

func (r *replica) awaitWhy(t *testing.T, name, why string) {
	t.Helper()
	var got corev1.PodCondition
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		got = scheduled(r.get(t, name))
		return got.Message == why, nil
	})
	if err != nil || got.Status != corev1.ConditionFalse || got.Reason != "Unschedulable" {
		t.Fatalf("%s: %+v, want %q", name, got, why)
	}
}

func selecting(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: value} }
}

func labelled(key, value string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels = map[string]string{key: value} }
}

func tainted(key string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

func hostPort(number int32, ip string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: number, HostPort: number, HostIP: ip}}
	}
}

func (r *replica) remove(t *testing.T, name string) {
	t.Helper()
	now := &metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
	if _, _, err := r.pods().Delete(storagetest.In(t, "ns"), name, rest.ValidateAllObjectFunc, now); err != nil {
		t.Fatal(err)
	}
}

func TestPodWaitsForANode(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	r.pod(t, "p", selecting("disk", "ssd"))
	r.awaitWhy(t, "p", noNodes)
	since := scheduled(r.get(t, "p")).LastTransitionTime
	r.node(t, "plain")
	r.awaitWhy(t, "p", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
	r.node(t, "reserved", tainted("dedicated", corev1.TaintEffectNoSchedule))
	r.awaitWhy(t, "p", "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {dedicated: }.")
	if now := scheduled(r.get(t, "p")).LastTransitionTime; !now.Equal(&since) {
		t.Errorf("the condition was false since %v, and now since %v", since, now)
	}
	// A change that does not matter does not cause another attempt or another event.
	r.changeNode(t, r.Subresource(corev1.Resource("nodes/status")), "plain", func(n *corev1.Node) { n.Status.NodeInfo.KubeletVersion = "v1" })
	r.changeNode(t, r.Store(nodeResource), "plain", func(n *corev1.Node) { n.Labels = map[string]string{"disk": "ssd"} })
	r.awaitNode(t, "p", "plain")
	if c := scheduled(r.get(t, "p")); c.Status != corev1.ConditionTrue {
		t.Errorf("bound, and %+v", c)
	}
	want := []string{
		"Warning FailedScheduling: " + noNodes,
		"Warning FailedScheduling: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
		"Warning FailedScheduling: 0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {dedicated: }.",
		"Normal Scheduled: Successfully assigned ns/p to plain",
	}
	await(t, "the events are recorded", func() bool { return len(r.events.about("p")) == len(want) })
	if diff := cmp.Diff(want, r.events.about("p")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestWhichNodeFits(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	r.node(t, "a-cordoned", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	r.node(t, "b-unready", func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })
	r.node(t, "c-new", func(n *corev1.Node) { n.Status.Conditions = nil })
	r.node(t, "d-noexecute", tainted("x", corev1.TaintEffectNoExecute))
	r.node(t, "e-rather-not", tainted("x", corev1.TaintEffectPreferNoSchedule), labelled("zone", "e"))
	tolerating := func(key string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: key, Operator: corev1.TolerationOpExists}}
		}
	}
	affine := func(zone string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{zone}},
				}}},
			}}}
		}
	}
	r.pod(t, "any")
	r.awaitNode(t, "any", "e-rather-not")
	r.pod(t, "tolerant", tolerating("x"))
	r.awaitNode(t, "tolerant", "d-noexecute")
	r.pod(t, "on-cordoned", tolerating(corev1.TaintNodeUnschedulable))
	r.awaitNode(t, "on-cordoned", "a-cordoned")
	r.pod(t, "affine", affine("e"))
	r.awaitNode(t, "affine", "e-rather-not")
	r.pod(t, "elsewhere", affine("f"), tolerating(corev1.TaintNodeNotReady))
	r.awaitWhy(t, "elsewhere", "0/5 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "+
		"1 node(s) had untolerated taint {x: }, 1 node(s) were unschedulable, 2 node(s) were not ready.")
}

// TestPodsOfOthers: pods that this scheduler does not have to bind stay as they are.
func TestPodsOfOthers(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	r.node(t, "n")
	r.pod(t, "foreign", func(p *corev1.Pod) { p.Spec.SchedulerName = "another" })
	r.pod(t, "process", func(p *corev1.Pod) { p.Annotations = map[string]string{podannotation.Process: "true"} })
	r.pod(t, "gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/g"}} })
	r.pod(t, "ordinary")
	r.awaitNode(t, "ordinary", "n")
	for _, name := range []string{"foreign", "process", "gated"} {
		if p := r.get(t, name); p.Spec.NodeName != "" || scheduled(p).Reason == "Unschedulable" {
			t.Errorf("%s: on %q, %+v", name, p.Spec.NodeName, scheduled(p))
		}
	}
	_, _, err := r.pods().Update(storagetest.In(t, "ns"), "gated", controllertest.Change(func(p *corev1.Pod) { p.Spec.SchedulingGates = nil }),
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.awaitNode(t, "gated", "n")
}

func TestManyPodsAreSpread(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	for _, name := range []string{"a", "b", "c", "d"} {
		r.node(t, name)
	}
	const many = 200
	began := time.Now()
	for i := range many {
		r.pod(t, fmt.Sprint("p", i))
	}
	perNode := map[string]int{}
	await(t, "all are bound", func() bool {
		clear(perNode)
		list, err := r.pods().List(storagetest.In(t, "ns"), &internalversion.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list.(*corev1.PodList).Items {
			if p.Spec.NodeName != "" {
				perNode[p.Spec.NodeName]++
			}
		}
		return perNode["a"]+perNode["b"]+perNode["c"]+perNode["d"] == many
	})
	t.Logf("%d pods in %v", many, time.Since(began))
	for name, n := range perNode {
		if n != many/4 {
			t.Errorf("%d pods on %s", n, name)
		}
	}
}

// TestFinishedPodsAreNotCounted checks that the pods of a node are counted without the pods that have finished or are gone.
func TestFinishedPodsAreNotCounted(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	r.node(t, "a")
	r.node(t, "b")
	for i, node := range []string{"a", "b", "a", "b"} {
		name := fmt.Sprint("p", i)
		r.pod(t, name)
		r.awaitNode(t, name, node)
	}
	r.remove(t, "p1")
	_, _, err := r.Subresource(corev1.Resource("pods/status")).Update(storagetest.In(t, "ns"), "p3", controllertest.Change(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, node := range []string{"b", "b", "a"} {
		name := fmt.Sprint("q", i)
		r.pod(t, name)
		r.awaitNode(t, name, node)
	}
}

func TestHostPorts(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	r.node(t, "a")
	r.node(t, "b")
	r.pod(t, "p0", hostPort(80, ""))
	r.awaitNode(t, "p0", "a")
	r.pod(t, "p1", hostPort(80, "10.0.0.1"))
	r.awaitNode(t, "p1", "b")
	r.pod(t, "p2", hostPort(80, "10.0.0.2"))
	r.awaitNode(t, "p2", "b")
	r.pod(t, "p3", hostPort(80, ""))
	const why = "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports."
	r.awaitWhy(t, "p3", why)
	r.remove(t, "p0")
	r.awaitNode(t, "p3", "a")
	r.pod(t, "p4", hostPort(80, "10.0.0.3"))
	r.awaitNode(t, "p4", "b")
}

// TestReplicasAgree has several schedulers bind the same pods: each pod is bound once, with one event, and no host port
// is assigned twice.
func TestReplicasAgree(t *testing.T) {
	t.Parallel()
	r := start(t, 3)
	nodes := []string{"a", "b", "c", "d", "e"}
	r.pod(t, "early")
	r.awaitWhy(t, "early", noNodes)
	for _, name := range nodes {
		r.node(t, name)
	}
	// A replica that had not seen the nodes would report the pods as unschedulable.
	await(t, "every replica has seen the nodes", func() bool { return r.nodes.Load() == int64(3*len(nodes)) })
	for i := range 20 {
		r.pod(t, fmt.Sprint("p", i))
	}
	for i := range nodes {
		r.pod(t, fmt.Sprint("port", i), hostPort(80, ""))
	}
	used := map[string]string{}
	for i := range nodes {
		name := fmt.Sprint("port", i)
		await(t, name+" is bound", func() bool { return r.get(t, name).Spec.NodeName != "" })
		on := r.get(t, name).Spec.NodeName
		if other, taken := used[on]; taken {
			t.Errorf("%s and %s are on %s", other, name, on)
		}
		used[on] = name
	}
	for i := range 20 {
		name := fmt.Sprint("p", i)
		await(t, name+" is bound and has an event", func() bool {
			return r.get(t, name).Spec.NodeName != "" && len(r.events.about(name)) > 0
		})
		if all := r.events.about(name); len(all) != 1 {
			t.Errorf("%s: %q", name, all)
		}
	}
}

// TestElection: the replica that is not elected does not assign host ports, and does once it is elected. Until a pod
// with host ports waits, no replica takes part.
func TestElection(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	client := r.Client(bootstrap.Scheduler)
	short := durations{lease: 2 * time.Second, renew: 1500 * time.Millisecond, retry: 50 * time.Millisecond}
	elected := make(chan string, 2)
	candidate := func(identity string) *election {
		return &election{client: client, identity: identity, durations: short, elected: func() { elected <- identity }}
	}
	one, two := candidate("one"), candidate("two")
	wanted := []port{{slot{corev1.ProtocolTCP, 80}, ""}}
	claims := func(e *election, want error) {
		t.Helper()
		_, release, err := e.claim(t.Context(), "n", wanted)
		if err == nil {
			release()
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", e.identity, err, want)
		}
	}
	claims(one, controller.ErrNotYet)
	if _, err := r.Store(leaseResource).Get(storagetest.In(t, metav1.NamespaceSystem), bootstrap.SchedulerLease, &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the lease before a replica takes part: %v", err)
	}
	first, resign := context.WithCancel(t.Context())
	one.join(first)
	<-elected
	two.join(t.Context())
	claims(one, nil)
	claims(two, controller.ErrNotYet)

	// A claim ends with the term, so that no binding is written after it.
	claimed, release, err := one.claim(t.Context(), "n", wanted)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if deadline, ok := claimed.Deadline(); !ok || time.Until(deadline) > short.bind() {
		t.Errorf("a binding may take until %v", deadline)
	}
	resign()
	<-claimed.Done()
	claims(one, controller.ErrNotYet)
	resigned := time.Now()
	if next := <-elected; next != "two" || time.Since(resigned) < short.bind() {
		t.Errorf("%s is elected after %v", next, time.Since(resigned))
	}
	claims(two, nil)

	// The ports of a pod that the feeds have not reported are considered too.
	r.node(t, "n")
	r.pod(t, "p", hostPort(80, ""))
	r.awaitNode(t, "p", "n")
	third := candidate("three")
	third.lead(t.Context())
	<-elected
	claims(third, controller.ErrNotYet)
}

// TestDurations: a leader stops, and its last binding ends, before another replica may take over.
func TestDurations(t *testing.T) {
	t.Parallel()
	if d := usualDurations; d.renew+d.bind() > d.lease || d.bind() < time.Second || d.retry >= d.renew/2 {
		t.Errorf("%+v", d)
	}
}
