package nodeaccess

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Source tells whether the graph may be trusted now.
type Source interface {
	// Fresh returns an error when the graph may be behind other replicas for too long.
	Fresh() error
}

// Graph knows which objects belong to which node. It listens to the feed of pods.
type Graph struct {
	source Source

	mu   sync.RWMutex
	pods map[types.NamespacedName]bound
	// edges counts the pods that lead from an object to a node.
	edges map[edge]int
}

// bound is a pod that runs on a node.
type bound struct {
	node string
	uses []Reference
}

type edge struct {
	node            string
	kind            Kind
	namespace, name string
}

// NewGraph returns an empty graph.
func NewGraph(source Source) *Graph {
	return &Graph{source: source, pods: map[types.NamespacedName]bound{}, edges: map[edge]int{}}
}

// Set implements mirror.Listener. A pod without a node gives nobody anything.
func (g *Graph) Set(obj runtime.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	name := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	if pod.Spec.NodeName == "" {
		g.replace(name, bound{})
		return
	}
	now := bound{node: pod.Spec.NodeName}
	// A node writes its mirror pods itself, and must not be able to write itself access.
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		now.uses = References(pod)
	}
	g.replace(name, now)
}

// Delete implements mirror.Listener.
func (g *Graph) Delete(obj runtime.Object) {
	if m, err := meta.Accessor(obj); err == nil {
		g.replace(types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, bound{})
	}
}

// replace puts what a pod is now in the place of what it was, for readers in one step.
func (g *Graph) replace(name types.NamespacedName, now bound) {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.pods[name]
	// Most changes of a pod are of its status.
	if was.node == now.node && slices.Equal(was.uses, now.uses) {
		return
	}
	g.count(name, was, -1)
	g.count(name, now, +1)
	if now.node == "" {
		delete(g.pods, name)
		return
	}
	g.pods[name] = now
}

func (g *Graph) count(name types.NamespacedName, pod bound, by int) {
	if pod.node == "" {
		return
	}
	g.add(edge{pod.node, Pod, name.Namespace, name.Name}, by)
	for _, use := range pod.uses {
		g.add(edge{pod.node, use.Kind, name.Namespace, use.Name}, by)
	}
}

func (g *Graph) add(e edge, by int) {
	if g.edges[e] += by; g.edges[e] == 0 {
		delete(g.edges, e)
	}
}

// Belongs tells whether a pod on the node is, or uses, the named object. The error says that neither answer could be
// trusted.
func (g *Graph) Belongs(node string, kind Kind, namespace, name string) (bool, error) {
	if err := g.source.Fresh(); err != nil {
		return false, err
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	_, ok := g.edges[edge{node, kind, namespace, name}]
	return ok, nil
}
