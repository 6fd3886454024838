package nodeaccess

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"lanyard.dev/internal/podannotation"
)

// Source reports whether the changes that a feed has reported are recent enough to decide by.
type Source interface {
	// Fresh returns an error if this process may have been behind other replicas for too long.
	Fresh() error
}

// Pods is the index of the pods that are bound to nodes, and of the objects that they use. It listens to the feed of
// pods, as the first listener, so that later listeners find each change in it. It never calls other code.
type Pods struct {
	source Source

	mu     sync.RWMutex
	pods   map[types.NamespacedName]*entry
	byNode map[string]*node
}

// BoundPod is a pod that is bound to a node.
type BoundPod struct {
	UID types.UID
	// Finished reports that all containers have ended for good, and Process that the pod represents a process of
	// lanyard exec.
	Finished, Process bool
}

// entry is a pod with its node and the objects that it uses.
type entry struct {
	BoundPod
	node string
	uses []Reference
}

// node is what the index knows of the pods of one node.
type node struct {
	pods    map[types.NamespacedName]*entry
	running int // pods that have not finished
	// uses counts the pods that use an object, by namespace.
	uses map[object]int
}

type object struct {
	Reference
	namespace string
}

// NewPods returns an empty index.
func NewPods(source Source) *Pods {
	return &Pods{source: source, pods: map[types.NamespacedName]*entry{}, byNode: map[string]*node{}}
}

// Set implements mirror.Listener. A pod without a node is not in the index.
func (p *Pods) Set(obj runtime.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	if pod.Spec.NodeName == "" {
		p.replace(key, nil)
		return
	}
	now := &entry{node: pod.Spec.NodeName, BoundPod: BoundPod{
		UID: pod.UID, Process: podannotation.IsProcess(pod),
		Finished: pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed,
	}}
	// A node writes its mirror pods itself, and must not be able to give itself access by them.
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		now.uses = References(pod)
	}
	p.replace(key, now)
}

// Delete implements mirror.Listener.
func (p *Pods) Delete(obj runtime.Object) {
	if m, err := meta.Accessor(obj); err == nil {
		p.replace(types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, nil)
	}
}

// replace puts now in the place of the present entry, for readers in one step. now is nil for a pod that is bound no
// more.
func (p *Pods) replace(key types.NamespacedName, now *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.pods[key]
	// Most changes of a pod are changes of its status.
	if was != nil && now != nil && was.BoundPod == now.BoundPod && was.node == now.node && slices.Equal(was.uses, now.uses) {
		return
	}
	if was != nil {
		p.remove(key, was)
	}
	if now != nil {
		p.add(key, now)
	}
}

func (p *Pods) add(key types.NamespacedName, pod *entry) {
	n := p.byNode[pod.node]
	if n == nil {
		n = &node{pods: map[types.NamespacedName]*entry{}, uses: map[object]int{}}
		p.byNode[pod.node] = n
	}
	p.pods[key], n.pods[key] = pod, pod
	if !pod.Finished {
		n.running++
	}
	for _, use := range pod.uses {
		n.uses[object{use, key.Namespace}]++
	}
}

func (p *Pods) remove(key types.NamespacedName, pod *entry) {
	n := p.byNode[pod.node]
	delete(p.pods, key)
	if delete(n.pods, key); len(n.pods) == 0 {
		delete(p.byNode, pod.node)
		return
	}
	if !pod.Finished {
		n.running--
	}
	for _, use := range pod.uses {
		of := object{use, key.Namespace}
		if n.uses[of]--; n.uses[of] == 0 {
			delete(n.uses, of)
		}
	}
}

// On returns the pods that are bound to a node, which need not exist.
func (p *Pods) On(name string) map[types.NamespacedName]BoundPod {
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := p.byNode[name]
	if n == nil {
		return nil
	}
	pods := make(map[types.NamespacedName]BoundPod, len(n.pods))
	for key, pod := range n.pods {
		pods[key] = pod.BoundPod
	}
	return pods
}

// Running returns the number of pods that are bound to a node and have not finished.
func (p *Pods) Running(name string) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if n := p.byNode[name]; n != nil {
		return n.running
	}
	return 0
}

// Belongs reports whether a pod on the node is, or uses, the named object. An error means that the index may be behind,
// so that neither answer can be trusted.
func (p *Pods) Belongs(nodeName string, kind Kind, namespace, name string) (bool, error) {
	if err := p.source.Fresh(); err != nil {
		return false, err
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := p.byNode[nodeName]
	if n == nil {
		return false, nil
	}
	if kind == Pod {
		return n.pods[types.NamespacedName{Namespace: namespace, Name: name}] != nil, nil
	}
	return n.uses[object{Reference{kind, name}, namespace}] > 0, nil
}
