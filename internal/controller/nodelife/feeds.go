package nodelife

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/podannotation"
)

// NodeFeed listens to the feed of nodes.
func (c *Controller) NodeFeed() *NodeFeed { return &NodeFeed{c} }

// LeaseFeed listens to the feed of leases.
func (c *Controller) LeaseFeed() *LeaseFeed { return &LeaseFeed{c} }

// PodFeed listens to the feed of pods.
func (c *Controller) PodFeed() *PodFeed { return &PodFeed{c} }

// NodeFeed tells of nodes. It is a mirror.Listener.
type NodeFeed struct{ c *Controller }

// Set implements mirror.Listener.
func (f *NodeFeed) Set(obj runtime.Object) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	lost := controller.NodeReady(node) == corev1.ConditionUnknown
	if f.c.memory.setNode(node.Name, lost, f.c.Clock.Now()) || !tainted(node) {
		f.c.queue.Add(node.Name)
	}
}

// Delete implements mirror.Listener.
func (f *NodeFeed) Delete(obj runtime.Object) {
	if m, err := meta.Accessor(obj); err == nil {
		f.c.memory.deleteNode(m.GetName())
	}
}

// LeaseFeed tells of the leases of nodes. It is a mirror.Listener.
type LeaseFeed struct{ c *Controller }

// Set implements mirror.Listener.
func (f *LeaseFeed) Set(obj runtime.Object) {
	lease, ok := obj.(*coordinationv1.Lease)
	if !ok || lease.Namespace != corev1.NamespaceNodeLease {
		return
	}
	if f.c.memory.setLease(lease.Name, lease.ResourceVersion, lease.Spec.RenewTime, f.c.Clock.Now()) {
		f.c.queue.Add(lease.Name)
	}
}

// Delete implements mirror.Listener.
func (f *LeaseFeed) Delete(obj runtime.Object) {
	if m, err := meta.Accessor(obj); err == nil && m.GetNamespace() == corev1.NamespaceNodeLease {
		f.c.memory.deleteLease(m.GetName())
	}
}

// PodFeed tells of the pods on nodes. It is a mirror.Listener.
type PodFeed struct{ c *Controller }

// Set implements mirror.Listener. Processes are left out: their supervisors answer for them, whatever the agent does.
func (f *PodFeed) Set(obj runtime.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	if pod.Spec.NodeName == "" || controller.Finished(pod) || podannotation.IsProcess(pod) {
		f.c.memory.deletePod(key)
		return
	}
	f.c.memory.setPod(key, pod.UID, pod.Spec.NodeName)
}

// Delete implements mirror.Listener.
func (f *PodFeed) Delete(obj runtime.Object) {
	if m, err := meta.Accessor(obj); err == nil {
		f.c.memory.deletePod(types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()})
	}
}
