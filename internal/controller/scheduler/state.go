package scheduler

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/podannotation"
)

// state is what the feeds reported, so that the choice of a node costs the same however many pods there are.
type state struct {
	pods *nodeaccess.Pods // counts the pods of each node

	mu      sync.Mutex
	nodes   map[string]*node
	holders map[types.NamespacedName]holder
	waiting map[types.NamespacedName]waiting
}

// node is a node, or only the name of one if pods hold ports on it.
type node struct {
	object *corev1.Node // its name, labels and taints; nil if there is no such node
	ready  bool
	ports  ports // that are in use
}

// holder is a pod that holds host ports on a node.
type holder struct {
	uid   types.UID
	node  string
	ports []port
}

// waiting is a pod without a node. wantsPorts is whether it has host ports.
type waiting struct{ wantsPorts bool }

func newState(pods *nodeaccess.Pods) *state {
	return &state{pods: pods, nodes: map[string]*node{}, holders: map[types.NamespacedName]holder{}, waiting: map[types.NamespacedName]waiting{}}
}

// isPending reports whether this scheduler has to find a node for the pod.
func isPending(pod *corev1.Pod) bool {
	return pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil && pod.Spec.SchedulerName == corev1.DefaultSchedulerName &&
		len(pod.Spec.SchedulingGates) == 0 && !controller.Finished(pod) && !podannotation.IsProcess(pod)
}

// setPod records a pod and reports whether that freed a host port.
func (s *state) setPod(key types.NamespacedName, pod *corev1.Pod) (freed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, key)
	wanted := portsOf(&pod.Spec)
	if isPending(pod) {
		s.waiting[key] = waiting{wantsPorts: len(wanted) > 0}
	}
	holds := pod.Spec.NodeName != "" && !controller.Finished(pod) && len(wanted) > 0
	old, known := s.holders[key]
	if known && holds && old.uid == pod.UID && old.node == pod.Spec.NodeName {
		return false
	}
	freed = s.release(key)
	if holds {
		s.holders[key] = holder{uid: pod.UID, node: pod.Spec.NodeName, ports: wanted}
		s.entry(pod.Spec.NodeName).ports.add(wanted)
	}
	return freed
}

func (s *state) deletePod(key types.NamespacedName) (freed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, key)
	return s.release(key)
}

// release gives back the host ports of a pod and reports whether it held any. The caller holds mu.
func (s *state) release(key types.NamespacedName) bool {
	old, ok := s.holders[key]
	if !ok {
		return false
	}
	delete(s.holders, key)
	s.nodes[old.node].ports.remove(old.ports)
	s.drop(old.node)
	return true
}

// entry returns the node of a name, which it adds if it is new. The caller holds mu.
func (s *state) entry(name string) *node {
	n := s.nodes[name]
	if n == nil {
		n = &node{ports: ports{}}
		s.nodes[name] = n
	}
	return n
}

// drop forgets a name for which there is neither a node nor a port in use.
func (s *state) drop(name string) {
	if n := s.nodes[name]; n != nil && n.object == nil && len(n.ports) == 0 {
		delete(s.nodes, name)
	}
}

// setNode records a node and reports whether it differs from before in anything that decides where pods run.
func (s *state) setNode(obj *corev1.Node) (changed bool) {
	now := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: obj.Name, Labels: obj.Labels},
		Spec:       corev1.NodeSpec{Taints: obj.Spec.Taints, Unschedulable: obj.Spec.Unschedulable},
	}
	ready := controller.NodeReady(obj) == corev1.ConditionTrue
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.entry(obj.Name)
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
		s.drop(name)
	}
}

// choose returns the node for a pod; or "", and how many nodes refuse the pod for each reason.
func (s *state) choose(r *requirements) (name string, refusals map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fewest := 0
	refusals = map[string]int{}
	for candidate, n := range s.nodes {
		if n.object == nil {
			continue
		}
		if why := r.refusal(n); why != "" {
			refusals[why]++
			continue
		}
		pods := s.pods.Running(candidate)
		if name == "" || pods < fewest || pods == fewest && candidate < name {
			name, fewest = candidate, pods
		}
	}
	return name, refusals
}

// waitingPods returns the pods that wait for a node, or only those with host ports.
func (s *state) waitingPods(onlyPorts bool) []types.NamespacedName {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []types.NamespacedName
	for key, w := range s.waiting {
		if w.wantsPorts || !onlyPorts {
			keys = append(keys, key)
		}
	}
	return keys
}
