package scheduler

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/podannotation"
)

// state is what placing a pod needs to know, kept by what the feeds tell, so that it costs the same however many pods
// there are.
type state struct {
	mu      sync.Mutex
	nodes   map[string]*node
	placed  map[types.NamespacedName]placed
	waiting map[types.NamespacedName]waiting
}

// node is a node, or the name of one that is not there, or not yet, but has pods.
type node struct {
	object *corev1.Node // name, labels, taints; nil while there is none
	ready  bool
	pods   int
	ports  ports
}

// placed is a pod that takes room on a node.
type placed struct {
	uid   types.UID
	node  string
	ports []port
}

// waiting is a pod without a node.
type waiting struct{ ports bool }

func newState() *state {
	return &state{nodes: map[string]*node{}, placed: map[types.NamespacedName]placed{}, waiting: map[types.NamespacedName]waiting{}}
}

// wants tells whether a pod is to be given a node here.
func wants(pod *corev1.Pod) bool {
	return pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil && pod.Spec.SchedulerName == corev1.DefaultSchedulerName &&
		len(pod.Spec.SchedulingGates) == 0 && !controller.Finished(pod) && !podannotation.IsProcess(pod)
}

// setPod takes note of a pod. freed tells that a host port has become free.
func (s *state) setPod(key types.NamespacedName, pod *corev1.Pod) (freed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, key)
	if wants(pod) {
		s.waiting[key] = waiting{ports: len(portsOf(&pod.Spec)) > 0}
	}
	runs := pod.Spec.NodeName != "" && !controller.Finished(pod)
	old, known := s.placed[key]
	if known && runs && old.uid == pod.UID && old.node == pod.Spec.NodeName {
		return false
	}
	freed = s.unplace(key)
	if runs {
		now := placed{uid: pod.UID, node: pod.Spec.NodeName, ports: portsOf(&pod.Spec)}
		s.placed[key] = now
		n := s.nodeNamed(now.node)
		n.pods++
		n.ports.add(now.ports)
	}
	return freed
}

func (s *state) deletePod(key types.NamespacedName) (freed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, key)
	return s.unplace(key)
}

func (s *state) unplace(key types.NamespacedName) (freed bool) {
	old, ok := s.placed[key]
	if !ok {
		return false
	}
	delete(s.placed, key)
	n := s.nodes[old.node]
	n.pods--
	n.ports.remove(old.ports)
	s.forget(old.node)
	return len(old.ports) > 0
}

func (s *state) nodeNamed(name string) *node {
	n := s.nodes[name]
	if n == nil {
		n = &node{ports: ports{}}
		s.nodes[name] = n
	}
	return n
}

func (s *state) forget(name string) {
	if n := s.nodes[name]; n != nil && n.object == nil && n.pods == 0 {
		delete(s.nodes, name)
	}
}

// setNode takes note of a node, and tells whether it differs in anything that counts here.
func (s *state) setNode(obj *corev1.Node) (changed bool) {
	now := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: obj.Name, Labels: obj.Labels},
		Spec:       corev1.NodeSpec{Taints: obj.Spec.Taints, Unschedulable: obj.Spec.Unschedulable},
	}
	ready := controller.NodeReady(obj) == corev1.ConditionTrue
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodeNamed(obj.Name)
	if n.object != nil && n.ready == ready && equality.Semantic.DeepEqual(n.object, now) {
		return false
	}
	n.object, n.ready = now.DeepCopy(), ready
	return true
}

func (s *state) deleteNode(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[name]; n != nil {
		n.object, n.ready = nil, false
		s.forget(name)
	}
}

// choose returns the node for a pod, or why there is none.
func (s *state) choose(d *demand) (name string, refusals map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fewest := 0
	refusals = map[string]int{}
	for candidate, n := range s.nodes {
		if n.object == nil {
			continue
		}
		if why := d.refusal(n); why != "" {
			refusals[why]++
			continue
		}
		if name == "" || n.pods < fewest || n.pods == fewest && candidate < name {
			name, fewest = candidate, n.pods
		}
	}
	return name, refusals
}

// unplaced are the pods that wait for a node, only those that want host ports if so asked.
func (s *state) unplaced(wantPorts bool) []types.NamespacedName {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []types.NamespacedName
	for key, w := range s.waiting {
		if w.ports || !wantPorts {
			keys = append(keys, key)
		}
	}
	return keys
}
